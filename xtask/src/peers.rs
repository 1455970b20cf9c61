//! Measures this machine beside llama.cpp: `cargo xtask bench peers`, `cargo xtask bench typing --peer`.
//!
//! In: the workspace root; cargo, pip, a C++ compiler. Out: what `bench/peers.py` and `bench/keystrokes.py` print.
//! Never: part of CI: times say nothing on a shared machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::measure::{self, succeed, venv};

/// The release of llama.cpp's Python package that is measured against.
const LLAMA_CPP: &str = "llama-cpp-python==0.3.36";
/// What writes the random models.
const GGUF: &str = "gguf==0.19.0";
/// What builds llama.cpp's server; the last so that pip can read the package's name.
const BUILD_TOOLS: [&str; 3] = ["cmake==4.4.5", "ninja==1.13.2", "scikit-build-core==1.1.2"];
/// llama.cpp's own choice for the machine it is built on.
const NATIVE: &str = "-DGGML_NATIVE=ON";
/// A build for a machine with AMX, but without that: with it llama.cpp's `ggml_backend_amx_mul_mat` crashes on the
/// default model (a segmentation fault; Sapphire Rapids, this release).
const WITHOUT_AMX: &str = "-DGGML_NATIVE=OFF -DGGML_AVX=ON -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON \
     -DGGML_SSE42=ON -DGGML_AVX512=ON -DGGML_AVX512_VNNI=ON -DGGML_AVX512_VBMI=ON -DGGML_AVX512_BF16=ON";

/// Builds both engines and measures them in turn; `args` go to `bench/peers.py`.
///
/// # Errors
/// What failed, in words for a person.
pub fn run(root: &Path, args: &[&str]) -> Result<(), String> {
    let python = venv(&root.join(".tools").join("peers"))?;
    let mut install = Command::new(&python);
    install.args(["-m", "pip", "install", "--quiet", "--no-cache-dir", LLAMA_CPP, GGUF]);
    install.env("CMAKE_ARGS", instructions());
    eprintln!("installing {LLAMA_CPP}; the first time this builds llama.cpp, which takes minutes");
    succeed(&mut install)?;
    let agent = measure::release_build(root)?;
    measure::run_with(root, &python, &agent, "peers.py", args)
}

/// Runs `bench/keystrokes.py` with `args`; with `--peer` among them also llama.cpp's server, built for it.
///
/// # Errors
/// What failed, in words for a person.
pub fn run_typing(root: &Path, args: &[&str]) -> Result<(), String> {
    if !args.contains(&"--peer") {
        return measure::run(root, "keystrokes.py", args);
    }
    let server = match std::env::var_os("LLAMA_SERVER") {
        Some(given) => PathBuf::from(given),
        None => build_server(&root.join(".tools").join("llama-server"))?,
    };
    let agent = measure::agent(root)?;
    let mut command = measure::command(root, Path::new("python3"), &agent, "keystrokes.py", args)?;
    succeed(command.env("LLAMA_SERVER", server))
}

/// Builds llama.cpp's server from the sources that its Python package brings; does nothing twice.
fn build_server(dir: &Path) -> Result<PathBuf, String> {
    let sources = fetch_sources(dir)?;
    let build = sources.join("build");
    let server = build.join("bin/llama-server");
    if server.exists() {
        return Ok(server);
    }
    eprintln!("building llama.cpp's server from the sources of {LLAMA_CPP}, which takes minutes");
    build_tools(dir)?;
    let bin = dir.join("venv").join("bin");
    let mut configure = Command::new(bin.join("cmake"));
    configure.arg("-S").arg(&sources).arg("-B").arg(&build);
    configure.arg(format!("-DCMAKE_MAKE_PROGRAM={}", bin.join("ninja").display()));
    configure.args([
        "-G",
        "Ninja",
        "-DCMAKE_BUILD_TYPE=Release",
        "-DBUILD_SHARED_LIBS=OFF",
        "-DLLAMA_CURL=OFF",
    ]);
    configure.args(["-DLLAMA_BUILD_SERVER=ON", "-DLLAMA_BUILD_TOOLS=ON", "-DLLAMA_BUILD_TESTS=OFF"]);
    succeed(configure.args(instructions().split_whitespace()))?;
    succeed(Command::new(bin.join("cmake")).arg("--build").arg(&build).args(["--target", "llama-server"]))?;
    Ok(server)
}

/// Fetches the sources of llama.cpp that its Python package brings; does nothing twice.
///
/// # Errors
/// What failed, in words for a person.
pub fn fetch_sources(dir: &Path) -> Result<PathBuf, String> {
    let name = LLAMA_CPP.replace("==", "-").replace("llama-cpp-python", "llama_cpp_python");
    let sources = dir.join(&name).join("vendor/llama.cpp");
    if sources.exists() {
        return Ok(sources);
    }
    let python = build_tools(dir)?;
    let mut fetch = Command::new(&python);
    fetch.args(["-m", "pip", "download", "--quiet", "--no-deps", "--no-build-isolation"]);
    fetch.args(["--no-binary", "llama-cpp-python", "--dest"]).arg(dir);
    succeed(fetch.arg(LLAMA_CPP))?;
    // Whole or not at all.
    let unpacked = dir.join("unpacked");
    let archive = dir.join(format!("{name}.tar.gz"));
    std::fs::create_dir_all(&unpacked).map_err(|error| format!("{}: {error}", unpacked.display()))?;
    succeed(Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(&unpacked))?;
    std::fs::rename(unpacked.join(&name), dir.join(&name))
        .map_err(|error| format!("{}: {error}", unpacked.display()))?;
    Ok(sources)
}

/// Installs what builds llama.cpp, without which pip does not even fetch it; returns their Python.
fn build_tools(dir: &Path) -> Result<PathBuf, String> {
    let python = venv(&dir.join("venv"))?;
    succeed(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(BUILD_TOOLS))?;
    Ok(python)
}

/// Returns which instructions llama.cpp is built for.
fn instructions() -> &'static str {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    if cpu.contains("amx_int8") { WITHOUT_AMX } else { NATIVE }
}
