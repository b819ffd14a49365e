//! The clients of this repository against real nodes: their own tests, as they are.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::harness::examples::{Clients, clients};
use crate::harness::node::{Node, Options, run_command};

/// They start and kill nodes.
const BOUND: Duration = Duration::from_secs(240);

fn folder(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(name)
}

/// Copies the files of a folder that are sources, so that nothing is built inside the repository.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("the folder").flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if ["node_modules", "dist", "__pycache__", ".mypy_cache"].iter().any(|skipped| name == *skipped) {
            continue;
        }
        if path.is_dir() {
            copy(&path, &to.join(name));
        } else {
            std::fs::copy(&path, to.join(name)).expect("a copy");
        }
    }
}

/// Runs a program in a directory; it must succeed.
fn run(directory: &Path, program: &str, args: &[&str]) {
    let mut command = Command::new(program);
    command.args(args).current_dir(directory).env("ROLLBOOK_BIN", env!("CARGO_BIN_EXE_rollbook"));
    let exit = run_command(command, b"", BOUND);
    assert_eq!(exit.code, Some(0), "{}{}", exit.stdout, exit.stderr);
}

/// Builds the TypeScript client in a directory of its own.
pub(crate) fn build_typescript(clients: &Clients, directory: &Path) {
    copy(&folder("typescript"), directory);
    std::os::unix::fs::symlink(clients.modules(), directory.join("node_modules")).expect("a link");
    run(directory, "node", &["node_modules/typescript/bin/tsc", "-p", "."]);
}

#[test]
fn the_typescript_client_passes_its_tests() {
    let Some(clients) = clients() else { return };
    let directory = tempfile::TempDir::new().expect("temporary directory");
    build_typescript(&clients, directory.path());
    run(directory.path(), "npm", &["test"]);
}

/// As its README says: without a registry that has it, on whichever Node is there.
#[test]
fn a_program_installs_the_typescript_client_from_its_folder() {
    if clients().is_none() {
        return;
    }
    let node = Node::start(&Options::new());
    let directory = tempfile::TempDir::new().expect("temporary directory");
    copy(&folder("typescript"), &directory.path().join("client"));
    let program = format!(
        "import {{ connect }} from 'rollbook';
         const me = connect({{ url: 'http://{}', name: 'me', version: '1' }});
         await me.ready();
         console.log((await me.publish('app.x', 1)).index);
         await me.close();",
        node.web
    );
    std::fs::write(directory.path().join("program.mjs"), program).expect("a program");
    std::fs::write(directory.path().join("package.json"), "{\"private\":true}").expect("a package");
    let run = |program: &str, args: &[&str]| {
        let mut command = Command::new(program);
        command.args(args).current_dir(directory.path());
        run_command(command, b"", BOUND)
    };
    let installed = run("npm", &["install", "--no-audit", "--no-fund", "--prefer-offline", "./client"]);
    if ["ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ETIMEDOUT"].iter().any(|error| installed.stderr.contains(error)) {
        eprintln!("skipped: npm cannot fetch the compiler: {}", installed.stderr);
        return;
    }
    assert_eq!(installed.code, Some(0), "{}{}", installed.stdout, installed.stderr);
    let ran = run("node", &["program.mjs"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "1\n"), "{}", ran.stderr);
}

#[test]
fn the_python_client_passes_its_tests() {
    let Some(clients) = clients() else { return };
    let python = clients.python();
    if !python.exists() {
        eprintln!("skipped: there is no Python environment; make test makes it");
        return;
    }
    let directory = tempfile::TempDir::new().expect("temporary directory");
    copy(&folder("python"), directory.path());
    let mut command = Command::new(python);
    command.args(["-m", "unittest", "discover", "-s", "tests", "-t", "."]).current_dir(directory.path());
    command.env("ROLLBOOK_BIN", env!("CARGO_BIN_EXE_rollbook"));
    let exit = run_command(command, b"", BOUND);
    assert_eq!(exit.code, Some(0), "{}{}", exit.stdout, exit.stderr);
}

#[test]
fn each_client_stays_small() {
    for (name, sources, ending) in [("typescript", "src", "ts"), ("python", "rollbook", "py")] {
        let files = std::fs::read_dir(folder(name).join(sources)).expect("its sources").flatten();
        let files = files.filter(|file| file.path().extension().is_some_and(|found| found == ending));
        let lines: usize =
            files.map(|file| std::fs::read_to_string(file.path()).expect("a source").lines().count()).sum();
        assert!((100..830).contains(&lines), "{name}: {lines} lines");
    }
}
