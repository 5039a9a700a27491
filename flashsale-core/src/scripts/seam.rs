//! Where a harness puts a broken script in the place of ours, to prove that what watches over the engine sees it.
//!
//! Only a program that calls this can get there: no flag, no variable and no program that is shipped does.

use super::{ALL, Script, Used};

/// The text of the script of this name, as it is built in. `None`: there is none.
#[must_use]
pub fn script(name: &str) -> Option<&'static str> {
    Some(named(name)?.text)
}

/// Has this process run another text in the script's place.
///
/// # Panics
/// If there is no such script, or if it was in use before: a build that is broken by half proves nothing.
pub fn replace_script(name: &str, text: String) {
    let script = named(name).unwrap_or_else(|| panic!("there is no script {name}"));
    assert!(script.replace(text), "{name} is replaced before it is first used, and once");
}

/// A script's header begins with its name.
fn named(name: &str) -> Option<&'static Script> {
    ALL.into_iter().find(|script| {
        let header = script.text.lines().nth(1).unwrap_or_default();
        header.strip_prefix("-- ").and_then(|header| header.split(':').next()) == Some(name)
    })
}

impl Script {
    /// Whether the text counts from here on.
    fn replace(&self, text: String) -> bool {
        self.used.set(Used::new(text)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_replaced_before_its_first_use_and_once() {
        let (one, other) = (Script::new("#!lua\n-- one: says 1"), "#!lua\n-- one: says 2");
        assert!(one.replace(other.to_owned()));
        assert!(!one.replace(one.text.to_owned()));
        assert_eq!((&*one.used().text, one.sha()), (other, &*Used::new(other).sha));
        let used = Script::new("#!lua\n-- used: says 1");
        let sha = used.sha().to_owned();
        assert!(!used.replace(other.to_owned()));
        assert_eq!((used.sha(), &*used.used().text), (&*sha, used.text));
    }

    #[test]
    fn every_script_is_found_by_its_name() {
        for (place, name) in [
            "reserve",
            "begin",
            "settle",
            "load",
            "state",
            "stock",
            "look",
            "audit",
            "purge",
            "leave",
            "rate_limit",
            "cart",
            "preflight",
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(script(name), Some(ALL[place].text), "{name}");
        }
        assert_eq!(script("earthquake"), None);
    }
}
