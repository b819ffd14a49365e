//! Users and groups of this machine, from `/etc/passwd` and `/etc/group`.

use std::fs;

/// Whom a process runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    /// The number of the user.
    pub(crate) uid: u32,
    /// The number of the group.
    pub(crate) gid: u32,
    /// The numbers of all groups of the user.
    pub(crate) groups: Vec<u32>,
    /// The name of the user, if the user has an entry.
    pub(crate) name: Option<String>,
    /// The home of the user, if the user has an entry.
    pub(crate) home: Option<String>,
}

/// Finds `user` or `user:group`, each a name or a number.
///
/// # Errors
///
/// The sentence says what is unknown.
pub(crate) fn find_account(text: &str) -> Result<Account, String> {
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    find(text, &read("/etc/passwd"), &read("/etc/group"))
}

fn find(text: &str, passwd: &str, group: &str) -> Result<Account, String> {
    let (user, wanted_group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let entry = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| {
        fields.first().is_some_and(|name| *name == user) || fields.get(2).is_some_and(|uid| *uid == user)
    });
    let field = |index: usize| entry.as_ref().and_then(|fields| fields.get(index).copied());
    let number = |text: Option<&str>| text.and_then(|text| text.parse::<u32>().ok());
    let uid = number(field(2)).or_else(|| number(Some(user))).ok_or_else(|| format!("user {user:?} is unknown"))?;
    let named_groups: Vec<(&str, u32, &str)> = group
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            let (name, _, gid, members) = (fields.next()?, fields.next()?, fields.next()?, fields.next().unwrap_or(""));
            Some((name, gid.parse().ok()?, members))
        })
        .collect();
    let gid = match wanted_group {
        None => {
            number(field(3)).ok_or_else(|| format!("user {user:?} has no entry: name a group, as in {user}:100"))?
        }
        Some(wanted) => named_groups
            .iter()
            .find(|(name, ..)| *name == wanted)
            .map(|(_, gid, _)| *gid)
            .or_else(|| number(Some(wanted)))
            .ok_or_else(|| format!("group {wanted:?} is unknown"))?,
    };
    let name = field(0).map(str::to_owned);
    let belongs = |members: &str| name.as_ref().is_some_and(|name| members.split(',').any(|member| member == name));
    let mut groups = vec![gid];
    groups.extend(named_groups.iter().filter(|(_, id, members)| *id != gid && belongs(members)).map(|(_, id, _)| *id));
    Ok(Account { uid, gid, groups, home: field(5).map(str::to_owned), name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_found_by_name_and_by_number() {
        let passwd = "root:x:0:0:root:/:/bin/sh\nweb:x:33:34:web:/var/www:/bin/false\n";
        let group = "root:x:0:\nweb:x:34:\nlogs:x:50:web,root\nother:x:51:x\n";
        let web = find("web", passwd, group).unwrap();
        assert_eq!((web.uid, web.gid, web.groups.as_slice()), (33, 34, [34, 50].as_slice()));
        assert_eq!((web.name.as_deref(), web.home.as_deref()), (Some("web"), Some("/var/www")));
        assert_eq!(find("33", passwd, group).unwrap(), web);
        assert_eq!(find("web:logs", passwd, group).unwrap().gid, 50);
        assert_eq!(find("1234:100", passwd, group).unwrap().uid, 1234);
        assert!(find("1234", passwd, group).unwrap_err().contains("name a group"));
        assert!(find("nobody-such", passwd, group).is_err() && find("web:none", passwd, group).is_err());
    }
}
