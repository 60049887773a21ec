//! What follows a key of ssh_config(5), taken apart as OpenSSH's `argv_split` does it.

/// The words of a value: quotes of both kinds hold one together, a backslash takes their meaning away, and
/// a `#` at the beginning of a word begins a comment.
pub(super) fn split(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut rest = text.chars().peekable();
    loop {
        while rest.next_if(|c| c.is_whitespace()).is_some() {}
        if rest.peek().is_none_or(|c| *c == '#') {
            return Ok(words);
        }
        let (mut word, mut quote) = (String::new(), None);
        while let Some(c) = rest.next_if(|c| quote.is_some() || !c.is_whitespace()) {
            let escaped = |next: &char| {
                matches!(next, '\'' | '"' | '\\') || (*next == ' ' && quote.is_none())
            };
            match c {
                '\\' => word.push(rest.next_if(escaped).unwrap_or(c)),
                '\'' | '"' if quote.is_none() => quote = Some(c),
                c if quote == Some(c) => quote = None,
                c => word.push(c),
            }
        }
        if quote.is_some() {
            return Err("a quote is not closed".to_owned());
        }
        words.push(word);
    }
}

/// The one word that a value is.
pub(super) fn only(text: &str) -> Result<String, String> {
    let mut words = split(text)?.into_iter();
    match (words.next(), words.next()) {
        (Some(word), None) => Ok(word),
        (None, _) => Err("it has no value".to_owned()),
        (Some(_), Some(extra)) => Err(format!("'{extra}' is one word too many")),
    }
}

/// A value as it was written, without its comment.
pub(super) fn uncommented(text: &str) -> &str {
    let (mut quote, mut before, mut is_escaped) = (None, ' ', false);
    for (at, c) in text.char_indices() {
        match c {
            '#' if quote.is_none() && before.is_whitespace() => {
                return text.get(..at).unwrap_or(text).trim_end();
            }
            '\\' if !is_escaped => {
                (is_escaped, before) = (true, c);
                continue;
            }
            '\'' | '"' if quote.is_none() && !is_escaped => quote = Some(c),
            c if quote == Some(c) && !is_escaped => quote = None,
            _ => {}
        }
        (is_escaped, before) = (false, if is_escaped { '\\' } else { c });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_apart_as_in_ssh() {
        for (text, words) in [
            ("127.0.0.1 # c", &["127.0.0.1"][..]),
            ("a#b c", &["a#b", "c"]),
            ("\"x # y\" # z", &["x # y"]),
            ("'a b' \"c'd\" \"\"", &["a b", "c'd", ""]),
            ("a\\ b \\'c \"\\\"\" d\\e", &["a b", "'c", "\"", "d\\e"]),
            ("# all of it", &[]),
            ("", &[]),
        ] {
            assert_eq!(split(text).unwrap(), words, "{text}");
        }
        assert!(split("\"a").is_err() && split("a'").is_err());
        assert_eq!(only(" 'a b' # c"), Ok("a b".to_owned()));
        assert!(only("a b").is_err() && only("#a").is_err());
    }

    #[test]
    fn a_comment_is_cut_off_and_nothing_else() {
        for (text, rest) in [
            ("a # b", "a"),
            ("a#b", "a#b"),
            ("\"A=1\" \"B=# 3\" # c", "\"A=1\" \"B=# 3\""),
            ("a\\ #b", "a\\ #b"),
            ("#", ""),
            ("a", "a"),
        ] {
            assert_eq!(uncommented(text), rest, "{text}");
        }
    }
}
