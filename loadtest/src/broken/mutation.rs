//! The mistakes: what is changed in which script. Each has been made in a shop somewhere.

use anyhow::{Context, Result, ensure};
use flashsale_core::seam;

/// A build that breaks a promise.
#[derive(Debug)]
pub(crate) struct Mutation {
    pub(crate) name: &'static str,
    edits: &'static [Edit],
}

/// One change of a script's text.
#[derive(Debug)]
struct Edit {
    script: &'static str,
    /// Stands there exactly once.
    from: &'static str,
    to: &'static str,
}

const fn edit(script: &'static str, from: &'static str, to: &'static str) -> Edit {
    Edit { script, from, to }
}

/// Stock is checked in one step and taken in another: what is checked is what the last call saw.
pub(crate) static STALE_STOCK: Mutation = Mutation {
    name: "stale-stock",
    edits: &[
        edit(
            "reserve",
            "\nlocal reply, admitted = ",
            "
             local checked = {}
             for id, units in pairs(left) do
               checked[id] = tonumber(redis.call('HGET', KEYS[1], 'checked/' .. id) or units)
               redis.call('HSET', KEYS[1], 'checked/' .. id, units)
             end
             local reply, admitted = ",
        ),
        edit("reserve", "local units = left[ids[i]]", "local units = checked[ids[i]]"),
    ],
};

/// An entry is acknowledged and deleted as soon as it is in hand, before its order is recorded.
pub(crate) static EARLY_ACKNOWLEDGE: Mutation = Mutation {
    name: "early-acknowledge",
    edits: &[edit(
        "begin",
        "\nreturn reply",
        "
         for arg = 3, #ARGV, 3 do
           if ARGV[arg] ~= '' then
             redis.call('XACK', KEYS[5], 'drain', ARGV[arg])
             redis.call('XDEL', KEYS[5], ARGV[arg])
           end
         end
         return reply",
    )],
};

/// Units of a failed order go back whatever its state, as often as the verdict comes.
pub(crate) static BLIND_GIVE_BACK: Mutation = Mutation {
    name: "blind-give-back",
    edits: &[edit(
        "settle",
        "elseif verdict.word == 'failed' and (letter == 'Q' or letter == 'P') then",
        "elseif verdict.word == 'failed' then",
    )],
};

const RUN_ID: &str = "~= string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') then";
const NEVER: &str = "== 'never' then";

/// Nobody sees that Redis was restarted on an older state.
pub(crate) static BLIND_FENCE: Mutation = Mutation {
    name: "blind-fence",
    edits: &[
        edit("reserve", RUN_ID, NEVER),
        edit("reserve", "if seq < tonumber(ARGV[3]) then", "if seq == 'never' then"),
        edit("begin", RUN_ID, NEVER),
        edit("settle", RUN_ID, NEVER),
        edit("state", RUN_ID, NEVER),
        edit("look", "sound and '1' or '0'", "'1'"),
        edit("look", "sale[3] or '0'", "'999999999999999'"),
    ],
};

/// Each caller of a batch gets the answer of the one before.
pub(crate) static SHIFTED_ANSWERS: Mutation = Mutation {
    name: "shifted-answers",
    edits: &[edit(
        "reserve",
        "\nreturn reply",
        "
         table.insert(reply, 4, table.remove(reply))
         return reply",
    )],
};

/// A change of stock counts as often as it comes.
pub(crate) static UNNUMBERED: Mutation = Mutation {
    name: "unnumbered",
    edits: &[
        edit("stock", "if number < last then", "if number < 0 then"),
        edit("stock", "if number == last then", "if number < 0 then"),
    ],
};

const ALL: [&Mutation; 6] =
    [&STALE_STOCK, &EARLY_ACKNOWLEDGE, &BLIND_GIVE_BACK, &BLIND_FENCE, &SHIFTED_ANSWERS, &UNNUMBERED];

pub(super) fn named(name: &str) -> Result<&'static Mutation, String> {
    let found = ALL.into_iter().find(|mutation| mutation.name == name);
    found.ok_or_else(|| {
        format!("there is no such mutation; there are: {}", ALL.map(|mutation| mutation.name).join(", "))
    })
}

impl Mutation {
    /// Breaks this process, before it has run any script.
    pub(super) fn apply(&self) -> Result<()> {
        let mut scripts: Vec<_> = self.edits.iter().map(|edit| edit.script).collect();
        scripts.dedup();
        for name in scripts {
            seam::replace_script(name, self.script(name)?);
        }
        Ok(())
    }

    /// The text of a script in this build. An error if the script no longer has what was to be changed: a control
    /// that changes nothing would prove nothing.
    pub(crate) fn script(&self, name: &str) -> Result<String> {
        let mut text = seam::script(name).with_context(|| format!("there is no script {name}"))?.to_owned();
        for Edit { from, to, .. } in self.edits.iter().filter(|edit| edit.script == name) {
            let places = text.matches(from).count();
            ensure!(
                places == 1,
                "{}: {name}.lua has {from:?} {places} times: the mutation is to be changed with the script",
                self.name
            );
            text = text.replace(from, to);
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mutation_still_fits_its_scripts() {
        for mutation in ALL {
            for Edit { script, .. } in mutation.edits {
                let text = mutation.script(script).unwrap();
                assert_ne!(Some(&*text), seam::script(script), "{}", mutation.name);
                assert!(text.starts_with("#!lua"), "{}", mutation.name);
            }
        }
    }

    #[test]
    fn a_mutation_that_changes_nothing_says_so() {
        const STALE: &[Edit] = &[edit("begin", "what was there last year", "")];
        const VAGUE: &[Edit] = &[edit("begin", "redis.call", "")];
        let stale = Mutation { name: "stale", edits: STALE };
        assert!(stale.script("begin").unwrap_err().to_string().contains("begin.lua"));
        let vague = Mutation { name: "vague", edits: VAGUE };
        assert!(vague.script("begin").is_err());
        assert!(Mutation { name: "lost", edits: &[] }.script("earthquake").is_err());
        assert!(named("stale-stock").is_ok() && named("earthquake").unwrap_err().contains("stale-stock"));
    }
}
