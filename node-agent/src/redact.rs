//! What programs print may hold what a Secret told them; it is taken out before it is told to anybody.

/// Puts `***` in place of each of these values. Shorter ones than three characters stay: they stand in any text, and
/// taking them out would show where they are.
pub(crate) fn redact<'a>(text: &str, secrets: impl IntoIterator<Item = &'a String>) -> String {
    let mut secrets: Vec<&String> = secrets.into_iter().filter(|secret| secret.len() >= 3).collect();
    // A value that holds another one goes as a whole.
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets.into_iter().fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), "***"))
}

#[cfg(test)]
mod tests {
    use super::redact;

    #[test]
    fn nothing_of_a_longer_value_is_left_and_short_ones_are_no_secret() {
        let secrets = ["sword", "swordfish", "a"].map(str::to_owned);
        assert_eq!(redact("a swordfish, a sword", &secrets), "a ***, a ***");
    }
}
