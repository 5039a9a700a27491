//! Instants and lengths of time as people say them.

use chrono::{DateTime, TimeDelta, Utc};

use crate::output;

const UNITS: [(&str, i64); 5] = [("y", 365 * 86_400), ("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)];

/// A length of time in its two largest units: `3 h 12 min`.
pub(crate) fn length(time: TimeDelta) -> String {
    let seconds = (time.num_milliseconds().abs() + 500) / 1_000;
    let largest = UNITS.iter().position(|(_, unit)| seconds >= *unit).unwrap_or(UNITS.len() - 1);
    let (name, unit) = UNITS[largest];
    let first = format!("{} {name}", seconds / unit);
    match UNITS.get(largest + 1) {
        Some((next, smaller)) if seconds % unit >= *smaller => {
            format!("{first} {} {next}", seconds % unit / smaller)
        }
        _ => first,
    }
}

/// An instant, and how far it is from now: `2026-11-27T12:00:00Z (in 3 h)`.
pub(crate) fn from_now(at: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let away = at - now;
    let words = if away >= TimeDelta::zero() {
        format!("in {}", length(away))
    } else {
        format!("{} ago", length(away))
    };
    format!("{} ({words})", output::instant(at))
}

/// Reads `2026-11-27T12:00:00Z`, `+1h30m` or `now`.
pub(crate) fn parse(text: &str) -> Result<DateTime<Utc>, &'static str> {
    const WRONG: &str =
        "must be an instant with its offset, such as 2026-11-27T12:00:00Z, or +2h, +1h30m, +10d, now";
    if text == "now" {
        return Ok(Utc::now());
    }
    let Some(ahead) = text.strip_prefix('+') else {
        return DateTime::parse_from_rfc3339(text).map(|at| at.to_utc()).map_err(|_| WRONG);
    };
    let (mut seconds, mut digits) = (0_i64, String::new());
    for character in ahead.chars() {
        if character.is_ascii_digit() {
            digits.push(character);
            continue;
        }
        let unit = match character {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            _ => return Err(WRONG),
        };
        let number: i64 = digits.parse().map_err(|_| WRONG)?;
        seconds = number.checked_mul(unit).and_then(|more| seconds.checked_add(more)).ok_or(WRONG)?;
        digits.clear();
    }
    if !digits.is_empty() || ahead.is_empty() {
        return Err(WRONG);
    }
    TimeDelta::try_seconds(seconds).and_then(|ahead| Utc::now().checked_add_signed(ahead)).ok_or(WRONG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_two_units_long() {
        for (seconds, said) in [
            (0, "0 s"),
            (59, "59 s"),
            (61, "1 min 1 s"),
            (3_600, "1 h"),
            (11_537, "3 h 12 min"),
            (-90_000, "1 d 1 h"),
            (86_400 * 400 + 59, "1 y 35 d"),
        ] {
            assert_eq!(length(TimeDelta::seconds(seconds)), said);
        }
    }

    #[test]
    fn instants_are_absolute_or_from_now() {
        let exact = parse("2026-11-27T13:00:00+01:00").unwrap();
        assert_eq!(exact.to_rfc3339(), "2026-11-27T12:00:00+00:00");
        for (text, seconds) in [("now", 0), ("+90s", 90), ("+1h30m", 5_400), ("+10d", 864_000)] {
            let off = parse(text).unwrap() - Utc::now() - TimeDelta::seconds(seconds);
            assert!(off.num_seconds().abs() < 60, "{text}: {off}");
        }
        for bad in
            ["", "+", "+2", "+h", "2h", "+2y", "-2h", "2026-11-27T12:00:00", "+99999999999999d", "noon"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
