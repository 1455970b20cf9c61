//! Tests of the GGUF reader on files it must take, and on many it must refuse.

use super::test_file::{GgufWriter, Written, test_model_path};
use super::*;

/// A file with every type of value, and tensors of three types.
fn small() -> GgufWriter {
    GgufWriter::new()
        .str("general.architecture", "llama")
        .raw("a.u8", 0, &[200])
        .raw("a.i8", 1, &[0xff])
        .raw("a.u16", 2, &500u16.to_le_bytes())
        .raw("a.i16", 3, &(-500i16).to_le_bytes())
        .u32("a.u32", 70_000)
        .raw("a.i32", 5, &(-70_000i32).to_le_bytes())
        .raw("a.f32", 6, &1.5f32.to_le_bytes())
        .bool("a.bool", true)
        .raw("a.u64", 10, &(1u64 << 40).to_le_bytes())
        .raw("a.i64", 11, &(-1i64).to_le_bytes())
        .raw("a.f64", 12, &2.5f64.to_le_bytes())
        .strs("a.strs", &["one", "", "zwei €"])
        .i32s("a.i32s", &[1, -2, 3])
        .raw("a.f32s", 9, &[6, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80, 0x3f])
        .nested("a.nested", 3)
        .tensor("blk.0.b", &[3], 0, &[7; 12])
        .tensor("blk.0.a", &[32, 2], 3, &[8; 40])
        .tensor("blk.0.c", &[2, 2, 1, 1], 1, &[9; 8])
}

fn open(file: &GgufWriter) -> Result<Gguf, Error> {
    Gguf::from_bytes(file.write().bytes)
}

/// Reads everything an opened file has.
fn read_all(gguf: &Gguf) -> usize {
    let mut n_bytes = 0;
    for key in gguf.keys() {
        n_bytes += gguf.get(key).expect("a listed key is there").to_string().len();
        n_bytes += gguf.str_array(key).map_or(0, |strings| strings.map(<[u8]>::len).sum());
        n_bytes += gguf.i32_array(key).map_or(0, |ints| ints.len());
        n_bytes += gguf.f32_array(key).map_or(0, |floats| floats.len());
    }
    n_bytes + gguf.tensors().map(|tensor| tensor.data.iter().filter(|byte| **byte > 0).count()).sum::<usize>()
}

#[test]
fn what_a_file_holds_is_read_back() {
    for version in [2, 3] {
        let mut file = small();
        file.version = version;
        let gguf = open(&file).expect("a valid file");
        assert_eq!(gguf.version(), version);
        assert_eq!(gguf.n_bytes(), file.write().bytes.len() as u64);
        assert_eq!(gguf.keys().len(), 16);
        assert_eq!(gguf.str("general.architecture").expect("a string"), "llama");
        assert_eq!(gguf.u32("a.u8").expect("an integer"), 200);
        assert_eq!(gguf.u32("a.u16").expect("an integer"), 500);
        assert_eq!(gguf.u64("a.u32").expect("an integer"), 70_000);
        assert_eq!(gguf.u64("a.u64").expect("an integer"), 1 << 40);
        assert_eq!(gguf.get("a.i8"), Some(Value::I8(-1)));
        assert_eq!(gguf.get("a.i16"), Some(Value::I16(-500)));
        assert_eq!(gguf.get("a.i32"), Some(Value::I32(-70_000)));
        assert_eq!(gguf.get("a.i64"), Some(Value::I64(-1)));
        assert_eq!(gguf.f32("a.f32").expect("a float"), 1.5);
        assert_eq!(gguf.f32("a.f64").expect("a float"), 2.5);
        assert!(gguf.bool("a.bool").expect("a bool"));
        let strings: Vec<&[u8]> = gguf.str_array("a.strs").expect("strings").collect();
        assert_eq!(strings, [b"one", &b""[..], "zwei €".as_bytes()]);
        assert_eq!(gguf.i32_array("a.i32s").expect("integers"), [1, -2, 3]);
        assert_eq!(gguf.f32_array("a.f32s").expect("floats"), [1.0]);
        assert_eq!(gguf.opt_u64("a.none").expect("no error"), None);
        assert!(gguf.contains("a.nested") && !gguf.contains("a.nest"));

        let names: Vec<&str> = gguf.tensors().map(|tensor| tensor.name).collect();
        assert_eq!(names, ["blk.0.a", "blk.0.b", "blk.0.c"]);
        let tensor = gguf.tensor("blk.0.a").expect("a tensor");
        assert_eq!((tensor.shape, tensor.dtype), (&[32, 2][..], GgmlType::Q4_1));
        assert_eq!((tensor.data, tensor.n_elements()), (&[8; 40][..], 64));
        assert_eq!(gguf.tensor("blk.0.b").expect("a tensor").data, [7; 12]);
        assert_eq!(gguf.tensor("blk.0.c").expect("a tensor").shape, [2, 2, 1, 1]);
    }
}

#[test]
fn another_alignment_moves_the_tensors() {
    for alignment in [8, 16, 256, 4096] {
        let file = GgufWriter::new().alignment(alignment).tensor("a", &[1], 0, b"aaaa").tensor(
            "b",
            &[1],
            0,
            b"bbbb",
        );
        let gguf = open(&file).expect("a valid file");
        assert_eq!(gguf.tensor("a").expect("a tensor").data, b"aaaa");
        assert_eq!(gguf.tensor("b").expect("a tensor").data, b"bbbb");
    }
}

#[test]
fn a_key_that_is_missing_or_of_another_type_is_an_error_that_says_so() {
    let gguf = open(&small()).expect("a valid file");
    let check = |error: Error, expect: &str| assert_eq!(error.to_string(), expect);
    check(gguf.u32("b").expect_err("missing"), "`b` is missing");
    check(
        gguf.u32("a.u64").expect_err("too large"),
        "`a.u64` must be an unsigned 32-bit integer, and is the integer 1099511627776",
    );
    check(
        gguf.u64("a.i64").expect_err("negative"),
        "`a.i64` must be an unsigned 64-bit integer, and is the integer -1",
    );
    check(gguf.f32("a.u8").expect_err("no float"), "`a.u8` must be a finite float, and is the integer 200");
    check(
        gguf.str("a.strs").expect_err("an array"),
        "`a.strs` must be a UTF-8 string, and is an array of 3 × Str",
    );
    check(
        gguf.str_array("a.i32s").map(|_| ()).expect_err("integers"),
        "`a.i32s` must be an array of strings, and is an array of 3 × I32",
    );
    check(gguf.bool("a.u8").expect_err("no bool"), "`a.u8` must be a bool, and is the integer 200");
    check(gguf.tensor("x").expect_err("missing"), "the tensor `x` is missing");
}

#[test]
fn every_way_to_break_a_header_has_its_own_error() {
    #[track_caller]
    fn check(file: GgufWriter, expect: &str) {
        let error = open(&file).expect_err("must be refused");
        assert_eq!(error.to_string(), expect);
        assert!(!error.hint().is_empty());
    }
    let version = |version| {
        let mut file = small();
        file.version = version;
        file
    };
    check(version(1), "it is GGUF version 1; versions 2 and 3 can be read");
    check(version(4), "it is GGUF version 4; versions 2 and 3 can be read");
    check(version(3u32.swap_bytes()), "it is a big-endian GGUF file; only little-endian files can be read");
    check(small().u32("a.u8", 1), "the metadata key `a.u8` is there twice");
    check(small().raw("x", 13, &[]), "the value of `x` has the unknown type 13");
    check(small().raw("x", 7, &[2]), "the bool `x` is 2");
    check(small().nested("x", 5), "the arrays of `x` are nested too deep");
    check(small().alignment(4), "`general.alignment` is 4, which is not a power of two from 8 to 65536");
    check(small().alignment(24), "`general.alignment` is 24, which is not a power of two from 8 to 65536");
    check(
        small().alignment(1 << 20),
        "`general.alignment` is 1048576, which is not a power of two from 8 to 65536",
    );
    check(
        GgufWriter::new().str("general.alignment", "32"),
        "`general.alignment` must be an unsigned integer, and is a string of 2 bytes",
    );
    check(
        GgufWriter::new().u32("", 1),
        "the metadata key at byte 24 is empty, longer than 65535 bytes, or not UTF-8",
    );
    check(
        GgufWriter::new().u32(&"k".repeat(65_536), 1),
        "the metadata key at byte 24 is empty, longer than 65535 bytes, or not UTF-8",
    );
    let tensor = |shape: &[u64], id| GgufWriter::new().tensor("t", shape, id, &[0; 64]);
    check(tensor(&[], 0), "tensor `t` has the impossible shape of 0 dimensions");
    check(tensor(&[1; 5], 0), "tensor `t` has the impossible shape of 5 dimensions");
    check(tensor(&[4, 0], 0), "tensor `t` has the impossible shape [4, 0]");
    check(tensor(&[1 << 32, 1 << 32], 0), "tensor `t` has the impossible shape [4294967296, 4294967296]");
    check(tensor(&[1 << 31, 1 << 31], 0), "tensor `t` has the impossible shape [2147483648, 2147483648]");
    check(tensor(&[4], 4), "tensor `t` has the type 4, which this version does not know");
    check(tensor(&[48], 2), "tensor `t` is Q4_0, and its rows of 48 are no multiple of 32");
    check(tensor(&[17], 0), "tensor `t` ends at byte 132, and the file at 128");
    check(GgufWriter::new().record("t", &[1], 0, 8), "tensor `t` begins at 8, which is no multiple of 32");
    check(
        GgufWriter::new().record("t", &[1], 0, u64::MAX - 31),
        "tensor `t` ends at byte 18446744073709551615, and the file at 64",
    );
    check(small().tensor("blk.0.b", &[1], 0, &[0; 4]), "the tensor `blk.0.b` is there twice");
    check(small().record("z", &[9], 0, 0), "tensors `blk.0.b` and `z` overlap");
    check(small().record("z", &[1], 0, 64), "tensors `blk.0.a` and `z` overlap");
}

#[test]
fn other_kinds_of_files_are_refused() {
    let refuse = |bytes: &[u8]| Gguf::from_bytes(bytes.to_vec()).expect_err("must be refused");
    assert!(matches!(refuse(b""), Error::Truncated { have: 0, .. }));
    assert!(matches!(refuse(b"PK\x03\x04 a zip archive"), Error::NotGguf { .. }));
    let missing = Gguf::open(Path::new("no/such/file.gguf")).expect_err("must be refused");
    assert!(matches!(missing, Error::Io(error) if error.kind() == std::io::ErrorKind::NotFound));
}

/// Numbers for mutations, the same in every run (Knuth's MMIX generator).
struct Lcg(u64);

impl Lcg {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % bound
    }
}

fn with_count(file: &Written, at: usize, count: u64) -> Vec<u8> {
    let mut bytes = file.bytes.clone();
    bytes[at..at + 8].copy_from_slice(&count.to_le_bytes());
    bytes
}

/// Most address space the process has had, in KiB: also memory that was asked for and not touched.
#[cfg(target_os = "linux")]
fn peak_address_space_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status.lines().find_map(|line| line.strip_prefix("VmPeak:")).expect("Linux has it");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[test]
fn four_hundred_broken_files_are_refused_or_read_and_never_cost_a_panic_or_the_memory() {
    let file = small().write();
    let mut lcg = Lcg(1);
    #[cfg(target_os = "linux")]
    let peak_before = peak_address_space_kib();

    let mut n_broken = 0;
    // Cut off: no beginning of the file is a file, as the last tensor ends it.
    let n_bytes = file.bytes.len();
    let at_counts = file.counts.iter().flat_map(|at| [*at, at + 4, at + 8]);
    let at_places = (0..4).chain(at_counts).chain(file.n_header_bytes - 8..n_bytes);
    for n_kept in at_places.step_by(3) {
        let cut = Gguf::from_bytes(file.bytes[..n_kept].to_vec());
        let error = cut.expect_err("a file without its end must be refused");
        assert!(
            matches!(error, Error::Truncated { .. } | Error::Count { .. } | Error::PastEnd { .. }),
            "cut at {n_kept}: {error}"
        );
        n_broken += 1;
    }
    // Lying: a huge count is refused where it stands, for what it counts.
    for at in &file.counts {
        for count in [u64::MAX, 1 << 62, 1 << 40] {
            let lying = Gguf::from_bytes(with_count(&file, *at, count));
            assert!(lying.is_err(), "the count at {at} is {count}");
            n_broken += 1;
        }
    }
    assert!(n_broken >= 120, "{n_broken}");
    // A bit flipped: refused, or a file like any other; all it then holds can be read.
    let mut n_opened = 0;
    while n_broken < 400 {
        let mut bytes = file.bytes.clone();
        bytes[lcg.below(file.n_header_bytes)] ^= 1 << lcg.below(8);
        match Gguf::from_bytes(bytes) {
            Ok(gguf) => {
                assert!(read_all(&gguf) > 0);
                n_opened += 1;
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
        n_broken += 1;
    }
    assert!(n_opened > 0 && n_opened < 200, "{n_opened}");

    // The smallest of the lying counts, taken for bytes, is 1 TiB.
    #[cfg(target_os = "linux")]
    assert!(peak_address_space_kib() - peak_before < 4 << 20);
}

#[test]
fn the_real_model_opens_and_its_beginning_is_an_incomplete_file() {
    let path = test_model_path();
    let gguf = Gguf::open(&path).expect("the default model");
    assert_eq!(gguf.str("general.architecture").expect("a string"), "llama");
    assert_eq!(gguf.u32("llama.block_count").expect("an integer"), 30);
    assert_eq!(gguf.str_array("tokenizer.ggml.tokens").expect("strings").count(), 49_152);
    assert_eq!(gguf.n_tensors(), 272);
    let tensor = gguf.tensor("token_embd.weight").expect("a tensor");
    assert_eq!(tensor.shape, [576, 49_152]);
    assert_eq!(tensor.data.len() as u64, tensor.n_elements() / 32 * tensor.dtype.block_bytes() as u64);

    let bytes = std::fs::read(&path).expect("the default model");
    let cut = Gguf::from_bytes(bytes[..2 << 20].to_vec()).expect_err("its end is missing");
    assert!(matches!(cut, Error::PastEnd { .. }), "{cut}");
    assert!(cut.hint().contains("incomplete"));
    let cut = Gguf::from_bytes(bytes[..1 << 20].to_vec()).expect_err("its header is cut");
    assert!(matches!(cut, Error::Truncated { .. } | Error::Count { .. }), "{cut}");
}
