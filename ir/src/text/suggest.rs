//! The name that was probably meant.

/// Finds near names, with a bound on the work that all searches of one source may cost together.
pub(super) struct Suggestions {
    work_left: usize,
}

impl Suggestions {
    pub fn new() -> Suggestions {
        Suggestions {
            work_left: 20_000_000,
        }
    }

    /// The candidate nearest to `name`, if one is near: at most a third of the letters differ.
    pub fn nearest<'c>(&mut self, name: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
        let most = name.len() / 3;
        let mut best: Option<(usize, &str)> = None;
        for candidate in candidates.filter(|c| c.len().abs_diff(name.len()) <= most) {
            self.work_left = self.work_left.checked_sub(name.len() * candidate.len() + 1)?;
            let distance = strsim::osa_distance(name, candidate);
            if distance <= most && best.is_none_or(|b| distance < b.0) {
                best = Some((distance, candidate));
            }
        }
        best.map(|b| b.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_swapped_pair_of_letters_is_near_and_another_word_is_not() {
        let names = ["conv1.weight", "conv1.bias", "x"];
        let mut suggestions = Suggestions::new();
        assert_eq!(
            suggestions.nearest("conv1.wieght", names.into_iter()),
            Some("conv1.weight")
        );
        assert_eq!(suggestions.nearest("logits", names.into_iter()), None);
    }

    #[test]
    fn searching_stops_when_it_has_cost_enough() {
        let names = vec!["abcdefghij"; 1000];
        let mut suggestions = Suggestions { work_left: 1000 };
        assert_eq!(
            suggestions.nearest("abcdefghij", names.iter().copied().take(5)),
            Some("abcdefghij")
        );
        assert_eq!(suggestions.nearest("abcdefghij", names.iter().copied()), None);
    }
}
