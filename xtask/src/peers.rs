//! Measures this machine beside llama.cpp: `cargo xtask bench peers`.
//!
//! In: the workspace root; cargo, pip, a C++ compiler. Out: `bench/runs/DATE-NAME`, by `bench/peers.py`.
//! Never: part of CI: times say nothing on a shared machine.

use std::path::Path;
use std::process::Command;

use crate::measure::{self, succeed};

/// The release of llama.cpp's Python package that is measured against.
const LLAMA_CPP: &str = "llama-cpp-python==0.3.36";
/// What writes the random models.
const GGUF: &str = "gguf==0.19.0";
/// A build for a machine with AMX, but without that: with it llama.cpp's `ggml_backend_amx_mul_mat` crashes on the
/// default model (a segmentation fault; Sapphire Rapids, this release).
const WITHOUT_AMX: &str = "-DGGML_NATIVE=OFF -DGGML_AVX=ON -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON \
     -DGGML_SSE42=ON -DGGML_AVX512=ON -DGGML_AVX512_VNNI=ON -DGGML_AVX512_VBMI=ON -DGGML_AVX512_BF16=ON";

/// Builds both engines and measures them in turn; `args` go to `bench/peers.py`.
///
/// # Errors
/// What failed, in words for a person.
pub fn run(root: &Path, args: &[&str]) -> Result<(), String> {
    let venv = root.join(".tools").join("peers");
    let python = venv.join("bin").join("python");
    if !python.exists() {
        succeed(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    }
    let mut install = Command::new(&python);
    install.args(["-m", "pip", "install", "--quiet", "--no-cache-dir", LLAMA_CPP, GGUF]);
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    if cpu.contains("amx_int8") {
        install.env("CMAKE_ARGS", WITHOUT_AMX);
    }
    eprintln!("installing {LLAMA_CPP}; the first time this builds llama.cpp, which takes minutes");
    succeed(&mut install)?;
    let agent = measure::release_build(root)?;
    measure::run_with(root, &python, &agent, "peers.py", args)
}
