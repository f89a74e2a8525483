//! The parameters of a request of the EC2 query protocol.

/// The parameters in their order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parameters(Vec<(String, String)>);

/// One `Filter.N`: a name, and values, one of which must match.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Filter {
    pub(crate) name: String,
    pub(crate) values: Vec<String>,
}

impl Parameters {
    /// Reads an `application/x-www-form-urlencoded` body.
    pub(crate) fn parse(body: &[u8]) -> Parameters {
        Parameters(form_urlencoded::parse(body).into_owned().collect())
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The values of `name.1`, `name.2`, … in the order of their numbers.
    pub(crate) fn list(&self, name: &str) -> Vec<String> {
        let mut found: Vec<(u32, &str)> = self
            .0
            .iter()
            .filter_map(|(key, value)| {
                let number = key.strip_prefix(name)?.strip_prefix('.')?.parse().ok()?;
                Some((number, value.as_str()))
            })
            .collect();
        found.sort_by_key(|(number, _)| *number);
        found.into_iter().map(|(_, value)| value.to_owned()).collect()
    }

    /// `Filter.N.Name` with its `Filter.N.Value.M`.
    pub(crate) fn filters(&self) -> Vec<Filter> {
        let mut numbers: Vec<u32> = self
            .0
            .iter()
            .filter_map(|(key, _)| {
                let (number, _) = key.strip_prefix("Filter.")?.split_once('.')?;
                number.parse().ok()
            })
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
            .into_iter()
            .map(|number| Filter {
                name: self.get(&format!("Filter.{number}.Name")).unwrap_or_default().to_owned(),
                values: self.list(&format!("Filter.{number}.Value")),
            })
            .collect()
    }

    /// The first parameter that is not in `known`, where `X` includes `X.…`.
    pub(crate) fn unknown(&self, known: &[&str]) -> Option<&str> {
        self.0.iter().map(|(key, _)| key.as_str()).find(|key| !known.contains(&key.split('.').next().unwrap_or(key)))
    }

    pub(crate) fn pairs(&self) -> &[(String, String)] {
        &self.0
    }
}

/// Whether `value` matches an EC2 filter value, in which `*` matches any text and `?` one character.
pub(crate) fn matches(pattern: &str, value: &str) -> bool {
    fn go(pattern: &[u8], value: &[u8]) -> bool {
        match (pattern.split_first(), value.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) => {
                go(rest, value) || value.split_first().is_some_and(|(_, tail)| go(pattern, tail))
            }
            (Some((b'?', rest)), Some((_, tail))) => go(rest, tail),
            (Some((a, rest)), Some((b, tail))) if a == b => go(rest, tail),
            _ => false,
        }
    }
    go(pattern.as_bytes(), value.as_bytes())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
mod tests {
    use super::*;

    #[test]
    fn lists_follow_their_numbers() {
        let parameters = Parameters::parse(b"A.10=x&A.2=y&AB.1=no&A.1=a%26b&Other=1");
        assert_eq!(parameters.list("A"), ["a&b", "y", "x"]);
        assert_eq!(parameters.unknown(&["A", "AB"]), Some("Other"));
    }

    #[test]
    fn filters_are_collected() {
        let parameters = Parameters::parse(b"Filter.2.Name=vpc-id&Filter.2.Value.1=v&Filter.1.Name=n");
        let [first, second] = parameters.filters().try_into().unwrap();
        assert_eq!((first.name.as_str(), first.values.len()), ("n", 0));
        assert_eq!((second.name.as_str(), second.values), ("vpc-id", vec!["v".to_owned()]));
    }

    #[test]
    fn wildcards() {
        for (pattern, value, expected) in [
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "10.0.0.11", false),
            ("10.0.*", "10.0.0.1", true),
            ("10.?.0.1", "10.0.0.1", true),
            ("*", "", true),
            ("?", "", false),
        ] {
            assert_eq!(matches(pattern, value), expected, "{pattern} {value}");
        }
    }
}
