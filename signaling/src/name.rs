//! What rooms and people may be called.

/// Longest name of a room in its canonical form, in characters.
pub const ROOM_CHARS_MAX: usize = 64;
/// Longest name of a person, in characters.
pub const PERSON_CHARS_MAX: usize = 40;

/// The canonical form of a room's name or number as somebody typed it, or `None` if it has none.
///
/// Case and outer blanks do not count, nor do blanks and dashes in a number: `4821-7739` and
/// `4821 7739` are `48217739`. A name has letters, digits, blanks and `-_.`, at least one of
/// them a letter or a digit.
#[must_use]
pub fn room(typed: &str) -> Option<String> {
    let lower = typed.to_lowercase();
    let words: Vec<&str> = lower.split_whitespace().collect();
    let number: String = words.concat().chars().filter(|c| *c != '-').collect();
    let is_number = !number.is_empty() && number.chars().all(|c| c.is_ascii_digit());
    let name = if is_number { number } else { words.join(" ") };
    let allowed = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | ' ');
    let fits = name.chars().all(allowed)
        && name.chars().any(char::is_alphanumeric)
        && name.chars().count() <= ROOM_CHARS_MAX;
    fits.then_some(name)
}

/// A person's name as the others may see it, or `None` if nothing visible is left or it is longer
/// than [`PERSON_CHARS_MAX`].
///
/// Characters that turn the text around them or hide are taken out: one name must not look like
/// another, nor disturb the page around it.
#[must_use]
pub fn person(typed: &str) -> Option<String> {
    let kept: String = typed.chars().map(blank).filter(|c| !is_hidden(*c)).collect();
    let name = kept.split_whitespace().collect::<Vec<_>>().join(" ");
    let fits = name.chars().any(|c| !is_joiner(c)) && name.chars().count() <= PERSON_CHARS_MAX;
    fits.then_some(name)
}

/// Whether two names are one to a listener.
#[must_use]
pub fn same_person(one: &str, other: &str) -> bool {
    one.to_lowercase() == other.to_lowercase()
}

/// Line breaks and tabs separate words like a blank does.
fn blank(c: char) -> char {
    if c.is_whitespace() { ' ' } else { c }
}

/// Controls, directional marks (Unicode UAX #9 §2) and characters without width.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}')
        || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
        || matches!(c, '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Belongs to the characters around it: Persian, Indian scripts and emoji need these.
fn is_joiner(c: char) -> bool {
    matches!(c, ' ' | '\u{200c}' | '\u{200d}' | '\u{fe00}'..='\u{fe0f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_the_same_room_however_it_is_grouped() {
        for typed in ["48217739", "4821-7739", " 4821 7739 ", "48-21-77-39"] {
            assert_eq!(room(typed).as_deref(), Some("48217739"), "{typed:?}");
        }
        assert_ne!(room("4821-7739a"), room("48217739a"));
    }

    #[test]
    fn a_room_name_is_folded_and_has_only_plain_characters() {
        assert_eq!(room("  Klasse   7B "), Some("klasse 7b".to_owned()));
        assert_eq!(room("Élèves_2.b"), Some("élèves_2.b".to_owned()));
        for bad in ["", "  ", "-", "--", "..", ".", "a/b", "a\\b", "<b>", "a\u{202e}b", "a%2fb"] {
            assert_eq!(room(bad), None, "{bad:?}");
        }
        assert!(room(&"x".repeat(ROOM_CHARS_MAX)).is_some());
        assert_eq!(room(&"x".repeat(ROOM_CHARS_MAX + 1)), None);
        assert_eq!(room(&"7".repeat(ROOM_CHARS_MAX + 1)), None);
    }

    #[test]
    fn a_person_name_loses_what_is_not_seen() {
        assert_eq!(person(" Ana\t\nB. "), Some("Ana B.".to_owned()));
        assert_eq!(person("A\u{202e}n\u{2066}a\u{7}\u{200b}"), Some("Ana".to_owned()));
        assert_eq!(person("\u{1f9d1}\u{200d}\u{1f3eb}").map(|name| name.chars().count()), Some(3));
        for bad in ["", " \n", "\u{202e}\u{200f}", "\u{200d}\u{200c}"] {
            assert_eq!(person(bad), None, "{bad:?}");
        }
        assert!(person(&"ä".repeat(PERSON_CHARS_MAX)).is_some());
        assert_eq!(person(&"ä".repeat(PERSON_CHARS_MAX + 1)), None);
    }
}
