//! Finds a member that an object of a JSON document has twice. JSON allows it, and each reader takes another
//! one for true.

use std::{collections::HashSet, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};

/// The name of such a member, if there is one.
pub(crate) struct Repeated(pub(crate) Option<String>);

impl<'de> Deserialize<'de> for Repeated {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Walk)
    }
}

struct Walk;

impl<'de> Visitor<'de> for Walk {
    type Value = Repeated;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Repeated, A::Error> {
        let (mut names, mut found) = (HashSet::new(), None);
        while let Some(name) = map.next_key::<String>()? {
            let inside = map.next_value::<Repeated>()?.0;
            found = found.or(inside);
            if let Some(name) = names.replace(name) {
                found.get_or_insert(name);
            }
        }
        Ok(Repeated(found))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Repeated, A::Error> {
        let mut found = None;
        while let Some(inside) = items.next_element::<Repeated>()? {
            found = found.or(inside.0);
        }
        Ok(Repeated(found))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Repeated, E> {
        Ok(Repeated(None))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Repeated, E> {
        Ok(Repeated(None))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Repeated, E> {
        Ok(Repeated(None))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Repeated, E> {
        Ok(Repeated(None))
    }

    fn visit_str<E>(self, _: &str) -> Result<Repeated, E> {
        Ok(Repeated(None))
    }

    fn visit_unit<E>(self) -> Result<Repeated, E> {
        Ok(Repeated(None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_there_once() {
        let repeated = |text| serde_json::from_str::<Repeated>(text).unwrap().0;
        for once in ["{}", "1", r#"{"a": 1, "b": [{"a": 1.5}, {"a": null}]}"#, r#"["a", "a", true, -1]"#] {
            assert_eq!(repeated(once), None, "{once}");
        }
        for twice in [r#"{"a": 1, "a": 1}"#, r#"{"b": [{"a": 1, "a": {}}]}"#, r#"{"\u0061": 1, "a": 2}"#] {
            assert_eq!(repeated(twice).as_deref(), Some("a"), "{twice}");
        }
    }
}
