//! The integer program against exact answers, and what a selection must keep.

use passes::eqsat::extract::{Candidate, Problem, ValueIx, greedy, integer};
use proptest::prelude::*;

fn candidate(needs: &[usize], offers: &[usize], compute: f64) -> Candidate {
    Candidate {
        needs: needs.iter().map(|&v| ValueIx(v)).collect(),
        offers: offers.iter().map(|&v| (ValueIx(v), 0.0)).collect(),
        compute,
        read: 0.0,
        launch: 0.0,
    }
}

fn problem(values: usize, wanted: &[usize], candidates: Vec<Candidate>) -> Problem {
    Problem {
        values,
        given: [ValueIx(0)].into(),
        wanted: wanted.iter().map(|&v| ValueIx(v)).collect(),
        candidates,
    }
}

fn seconds(problem: &Problem) -> f64 {
    let (selection, _) = integer::select(problem, &integer::Limits::default()).unwrap();
    assert_eq!(problem.verify(&selection), Ok(()));
    assert!(selection.bound <= selection.seconds * (1.0 + 1e-6) + 1e-12);
    selection.seconds
}

#[test]
fn what_many_need_is_paid_for_once() {
    // 1 costs 5 and serves both 2 and 3; each could be made alone for 4.
    let shared = vec![
        candidate(&[0], &[1], 5.0),
        candidate(&[1], &[2], 1.0),
        candidate(&[1], &[3], 1.0),
        candidate(&[0], &[2], 4.0),
        candidate(&[0], &[3], 4.0),
    ];
    let shared = problem(4, &[2, 3], shared);
    assert!((seconds(&shared) - 7.0).abs() < 1e-9);
    let greedy = greedy::select(&shared).unwrap();
    assert!((greedy.seconds - 8.0).abs() < 1e-9, "a tree's cost sees no sharing");
}

#[test]
fn candidates_that_wait_for_each_other_are_not_chosen() {
    // 1 and 2 make each other for nothing; one must come from what is there.
    let circle = vec![
        candidate(&[2], &[1], 0.0),
        candidate(&[1], &[2], 0.0),
        candidate(&[0], &[1], 3.0),
        candidate(&[0], &[2], 2.0),
    ];
    assert!((seconds(&problem(3, &[1, 2], circle)) - 2.0).abs() < 1e-9);
}

#[test]
fn a_stored_value_costs_its_traffic_where_arithmetic_does_not_hide_it() {
    let mut fused = candidate(&[0], &[1, 2], 1.0);
    fused.offers = vec![(ValueIx(1), 4.0), (ValueIx(2), 0.5)];
    fused.read = 1.0;
    fused.launch = 0.25;
    let only_last = problem(3, &[2], vec![fused.clone()]);
    assert!((seconds(&only_last) - (1.0 + 0.5 + 0.25)).abs() < 1e-9);
    let both = problem(3, &[1, 2], vec![fused]);
    assert!((seconds(&both) - (1.0 + 4.5 + 0.25)).abs() < 1e-9);
}

#[test]
fn a_value_that_nothing_makes_is_named() {
    let error = integer::select(&problem(3, &[2], vec![candidate(&[0], &[1], 1.0)]), &Default::default());
    assert_eq!(error.unwrap_err().to_string(), "no candidate makes value 2, which is wanted");
}

/// The least cost of a chain in which each value can be made on one of two devices and moved between them: value `2i + d`
/// is step `i` on device `d`.
fn chain_by_dynamic_program(work: &[[f64; 2]], moves: &[[f64; 2]]) -> f64 {
    let mut best = [0.0, f64::INFINITY];
    for (work, moves) in work.iter().zip(moves) {
        let before = [best[0].min(best[1] + moves[1]), best[1].min(best[0] + moves[0])];
        best = [before[0] + work[0], before[1] + work[1]];
    }
    best[0].min(best[1])
}

fn chain(work: &[[f64; 2]], moves: &[[f64; 2]]) -> Problem {
    let end = 2 * work.len() + 2;
    let mut candidates = vec![];
    for (i, (work, moves)) in work.iter().zip(moves).enumerate() {
        let at = |step: usize, device: usize| 2 * step + device;
        for device in [0, 1] {
            candidates.push(candidate(&[at(i, device)], &[at(i + 1, device)], work[device]));
            candidates.push(candidate(&[at(i, device)], &[at(i, 1 - device)], moves[device]));
        }
    }
    candidates.push(candidate(&[end - 2], &[end], 0.0));
    candidates.push(candidate(&[end - 1], &[end], 0.0));
    problem(end + 1, &[end], candidates)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn on_chains_over_two_devices_it_is_the_dynamic_program(
        steps in proptest::collection::vec(((0.1f64..9.0, 0.1f64..9.0), (0.1f64..4.0, 0.1f64..4.0)), 1..9)
    ) {
        let work: Vec<[f64; 2]> = steps.iter().map(|s| [s.0.0, s.0.1]).collect();
        let moves: Vec<[f64; 2]> = steps.iter().map(|s| [s.1.0, s.1.1]).collect();
        let exact = chain_by_dynamic_program(&work, &moves);
        let found = seconds(&chain(&work, &moves));
        prop_assert!((found - exact).abs() <= 1e-5 * exact, "{found} instead of {exact}");
    }

    #[test]
    fn no_selection_is_dearer_than_the_greedy_one_or_below_its_bound(
        shape in proptest::collection::vec((0usize..6, 0usize..6, 1usize..7, 0.0f64..5.0, 0.0f64..2.0), 6..40)
    ) {
        let mut candidates: Vec<Candidate> = shape
            .iter()
            .map(|&(a, b, to, compute, store)| Candidate {
                offers: vec![(ValueIx(to), store)],
                read: 0.3,
                launch: 0.1,
                ..candidate(&[a, b], &[], compute)
            })
            .collect();
        candidates.extend((1..7).map(|v| candidate(&[0], &[v], 6.0)));
        let problem = problem(7, &[5, 6], candidates);
        let greedy = greedy::select(&problem).unwrap();
        prop_assert_eq!(problem.verify(&greedy), Ok(()));
        prop_assert!(seconds(&problem) <= greedy.seconds * (1.0 + 1e-6));
    }
}
