//! What the machine must have before the build: found, or installed, or asked for by name.
//!
//! In: the machine. Out: nothing missing, or an error that says what to install.
//! Never: installs without being root on a Debian-like system.

use std::process::{Command, Stdio};

/// One thing the build or the tests run.
struct Need {
    /// A command that succeeds when it is there.
    probe: &'static [&'static str],
    /// Debian's packages that bring it; empty when it comes with Rust.
    packages: &'static [&'static str],
    /// What to say where there is no apt.
    hint: &'static str,
}

const NEEDS: &[Need] = &[
    Need {
        probe: &["cc", "--version"],
        packages: &["gcc", "libc6-dev"],
        hint: "a C compiler (git2 and tree-sitter build C)",
    },
    Need {
        probe: &["c++", "--version"],
        packages: &["g++"],
        hint: "a C++ compiler (llama.cpp, which the agent is tested against, is C++)",
    },
    Need { probe: &["git", "--version"], packages: &["git"], hint: "git (agent works in repositories)" },
    Need {
        probe: &["python3", "-m", "pip", "--version"],
        packages: &["python3", "python3-pip"],
        hint: "Python 3 with pip (it fetches the default model; an example is in Python)",
    },
    Need {
        probe: &["python3", "-c", "import ensurepip, venv"],
        packages: &["python3-venv"],
        hint: "Python's venv",
    },
    Need {
        probe: &["node", "--version"],
        packages: &["nodejs"],
        hint: "Node.js (an example is in JavaScript; the VS Code extension)",
    },
    Need { probe: &["npm", "--version"], packages: &["npm"], hint: "npm (builds the VS Code extension)" },
    Need {
        probe: &["cargo", "fmt", "--version"],
        packages: &[],
        hint: "rustfmt: rustup component add rustfmt",
    },
    Need {
        probe: &["cargo", "clippy", "--version"],
        packages: &[],
        hint: "clippy: rustup component add clippy",
    },
];

/// What a build for Windows takes from here beside that.
const WINDOWS_NEEDS: &[Need] = &[
    Need {
        probe: &["x86_64-w64-mingw32-gcc", "--version"],
        packages: &["gcc-mingw-w64-x86-64"],
        hint: "MinGW's C compiler (git2 and tree-sitter build C)",
    },
    Need {
        probe: &["x86_64-w64-mingw32-g++", "--version"],
        packages: &["g++-mingw-w64-x86-64"],
        hint: "MinGW's C++ compiler",
    },
];

/// Installs what is missing and can be installed; names the rest.
pub fn install_missing() -> Result<(), String> {
    install(NEEDS)
}

/// The same for a build for Windows.
pub fn install_missing_for_windows() -> Result<(), String> {
    install(WINDOWS_NEEDS)
}

fn install(needs: &'static [Need]) -> Result<(), String> {
    let missing = missing(needs);
    let packages: Vec<&str> = missing.iter().flat_map(|need| need.packages).copied().collect();
    if !packages.is_empty() && can_install() {
        println!("installing {}", packages.join(" "));
        apt_get(&["update"])?;
        apt_get(&[&["install", "--yes", "--no-install-recommends"], packages.as_slice()].concat())?;
    }
    match self::missing(needs).as_slice() {
        [] => {
            println!("all there");
            Ok(())
        }
        still => Err(format!("missing on this machine:{}", describe(still))),
    }
}

fn missing(needs: &'static [Need]) -> Vec<&'static Need> {
    needs.iter().filter(|need| !succeeds(need.probe)).collect()
}

fn describe(needs: &[&Need]) -> String {
    needs
        .iter()
        .map(|need| match need.packages {
            [] => format!("\n  {}", need.hint),
            packages => format!("\n  {}; on Debian: apt-get install {}", need.hint, packages.join(" ")),
        })
        .collect()
}

fn succeeds(probe: &[&str]) -> bool {
    let mut command = Command::new(probe[0]);
    command.args(&probe[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn can_install() -> bool {
    let id = Command::new("id").arg("-u").output();
    let is_root = id.is_ok_and(|output| output.stdout.trim_ascii() == b"0");
    is_root && succeeds(&["apt-get", "--version"])
}

fn apt_get(args: &[&str]) -> Result<(), String> {
    let status = Command::new("apt-get")
        .args(args)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .status()
        .map_err(|error| format!("cannot run apt-get: {error}"))?;
    match status.success() {
        true => Ok(()),
        false => Err(format!("apt-get {} failed ({status})", args.join(" "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_named_with_its_packages() {
        let absent = Need { probe: &["tandem-no-such-program"], packages: &["gcc", "git"], hint: "a thing" };
        assert!(!succeeds(absent.probe));
        assert!(succeeds(&["true"]) && !succeeds(&["false"]));
        assert_eq!(describe(&[&absent]), "\n  a thing; on Debian: apt-get install gcc git");
    }
}
