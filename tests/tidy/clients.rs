//! Who imports whom in the clients of other languages.

use std::collections::{BTreeMap, BTreeSet};

use super::Tree;
use super::arrows;

/// Sources of the clients, with the ending of their files.
pub(crate) const CLIENTS: [(&str, &str); 2] = [("clients/typescript/src/", ".ts"), ("clients/python/rollbook/", ".py")];

/// Which file of a client imports which, types that are only checked included.
pub(crate) fn imports(tree: &Tree, folder: &str, ending: &str) -> BTreeMap<String, BTreeSet<String>> {
    let files = tree.iter().filter(|(path, _)| path.starts_with(folder) && path.ends_with(ending));
    let targets = |text: &String| {
        let names = text.lines().filter_map(|line| imported(line, ending));
        let paths = names.map(|name| format!("{folder}{name}{ending}"));
        paths.filter(|path| tree.contains_key(path)).collect()
    };
    files.map(|(path, text)| (path.clone(), targets(text))).collect()
}

/// The file beside it that a line imports from: `from './link.js'`, `from .wire import Link`.
fn imported<'a>(line: &'a str, ending: &str) -> Option<&'a str> {
    if ending == ".py" {
        return line.trim_start().strip_prefix("from .")?.split_once(" import").map(|(name, _)| name);
    }
    line.split_once("from './")?.1.split_once(".js'").map(|(name, _)| name)
}

pub(crate) fn circles(tree: &Tree) -> Vec<String> {
    CLIENTS.into_iter().flat_map(|(folder, ending)| arrows::circles_of(imports(tree, folder, ending))).collect()
}

#[test]
fn a_circle_of_a_client_is_reported_also_when_it_is_of_types_alone() {
    let tree = super::tree(&[
        ("clients/typescript/src/index.ts", "import { Link } from './link.js';\nexport * from './types.js';"),
        ("clients/typescript/src/link.ts", "import type { Client } from './index.js';\nimport ws from 'ws';"),
        ("clients/typescript/src/types.ts", ""),
        ("clients/python/rollbook/client.py", "from .wire import Link"),
        ("clients/python/rollbook/wire.py", "import json\nif TYPE_CHECKING:\n    from .client import Client"),
    ]);
    assert_eq!(
        circles(&tree),
        [
            "import circle: clients/typescript/src/index.ts -> clients/typescript/src/link.ts -> clients/typescript/src/index.ts",
            "import circle: clients/python/rollbook/client.py -> clients/python/rollbook/wire.py -> clients/python/rollbook/client.py",
        ]
    );
}
