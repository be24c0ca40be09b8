//! From logits to probabilities, guesses and error rates, on the host in f64.

/// Softmax of one image's logits.
pub fn softmax(logits: &[f32]) -> Vec<f64> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = logits
        .iter()
        .map(|&logit| f64::from(logit - most).exp())
        .collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

/// The `count` most probable classes with their probabilities, best first; equal ones by class number.
pub fn best(probabilities: &[f64], count: usize) -> Vec<(usize, f64)> {
    let mut ranked: Vec<(usize, f64)> = probabilities.iter().copied().enumerate().collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    ranked.truncate(count);
    ranked
}

/// Loss and errors over many images.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tally {
    images: u64,
    loss: f64,
    wrong: u64,
    wrong_in_five: u64,
}

/// The result of a [`Tally`].
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Errors {
    /// The number of images.
    pub images: u64,
    /// Mean of −ln p(class).
    pub loss: f64,
    /// The share of images whose class is not the first guess.
    pub top1_error: f64,
    /// The share of images whose class is not among the first five guesses.
    pub top5_error: f64,
}

impl Tally {
    /// Adds one image, from its logits.
    pub fn add_logits(&mut self, logits: &[f32], label: usize) {
        let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits.iter().map(|&logit| f64::from(logit - most).exp()).sum();
        let loss = sum.ln()
            - logits
                .get(label)
                .map_or(f64::NAN, |&logit| f64::from(logit - most));
        let scores: Vec<f64> = logits.iter().map(|&logit| f64::from(logit)).collect();
        self.add(&scores, label, loss);
    }

    /// Adds one image, from its probabilities (the mean over views).
    pub fn add_probabilities(&mut self, probabilities: &[f64], label: usize) {
        let loss = probabilities.get(label).map_or(f64::NAN, |p| -p.ln());
        self.add(probabilities, label, loss);
    }

    fn add(&mut self, scores: &[f64], label: usize, loss: f64) {
        // The classes ranked before the right one. NaN ranks before it too, and so does an equal value of a lower class.
        let before = match scores.get(label) {
            Some(own) if own.is_finite() => {
                let ahead = |(class, score): (usize, &f64)| {
                    class != label && (score.is_nan() || score > own || (score == own && class < label))
                };
                scores.iter().enumerate().filter(|&pair| ahead(pair)).count()
            }
            _ => usize::MAX,
        };
        self.images += 1;
        self.loss += loss;
        self.wrong += u64::from(before >= 1);
        self.wrong_in_five += u64::from(before >= 5);
    }

    /// The means.
    pub fn errors(&self) -> Errors {
        let share = |count: f64| {
            if self.images == 0 {
                0.0
            } else {
                count / self.images as f64
            }
        };
        Errors {
            images: self.images,
            loss: share(self.loss),
            top1_error: share(self.wrong as f64),
            top5_error: share(self.wrong_in_five as f64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softmax_sums_to_one_even_for_large_logits() {
        let p = softmax(&[1000.0, 1000.0, -1000.0]);
        assert_eq!(p, [0.5, 0.5, 0.0]);
        let p = softmax(&[0.0, 1.0]);
        assert!((p[1] - std::f64::consts::E / (1.0 + std::f64::consts::E)).abs() < 1e-15);
    }

    #[test]
    fn best_first_and_ties_by_class() {
        assert_eq!(best(&[0.1, 0.4, 0.4, 0.1], 3), [(1, 0.4), (2, 0.4), (0, 0.1)]);
        assert_eq!(best(&[0.1], 5).len(), 1);
    }

    #[test]
    fn errors_count_ranks() {
        let mut tally = Tally::default();
        let logits = [6.0, 5.0, 4.0, 3.0, 2.0, 1.0];
        for label in 0..6 {
            tally.add_logits(&logits, label);
        }
        let errors = tally.errors();
        assert_eq!(
            (errors.images, errors.top1_error, errors.top5_error),
            (6, 5.0 / 6.0, 1.0 / 6.0)
        );
        let expected: f64 = softmax(&logits).iter().map(|p| -p.ln()).sum::<f64>() / 6.0;
        assert!((errors.loss - expected).abs() < 1e-12);
    }

    #[test]
    fn a_network_that_gives_the_same_for_all_classes_is_wrong_but_for_class_0() {
        let mut tally = Tally::default();
        (0..10).for_each(|label| tally.add_logits(&[0.5; 10], label));
        assert_eq!(tally.errors().top1_error, 0.9);
        let mut tally = Tally::default();
        (0..10).for_each(|label| tally.add_logits(&[f32::NAN; 10], label));
        assert_eq!((tally.errors().top1_error, tally.errors().top5_error), (1.0, 1.0));
    }

    #[test]
    fn both_ways_agree() {
        let (mut a, mut b) = (Tally::default(), Tally::default());
        let logits = [0.3, -1.0, 2.0];
        a.add_logits(&logits, 1);
        b.add_probabilities(&softmax(&logits), 1);
        assert!((a.errors().loss - b.errors().loss).abs() < 1e-12);
        assert_eq!(a.errors().top1_error, b.errors().top1_error);
        assert_eq!(Tally::default().errors().loss, 0.0);
    }
}
