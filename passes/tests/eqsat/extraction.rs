//! The integer program against exact answers, and what a selection must keep.

use passes::eqsat::extract::parts::parts;
use passes::eqsat::extract::{
    ClassValueId, ExtractError, ExtractionProblem, FusedOp, FusionChoice, FusionGroup, Need, Selection,
    Taken, greedy, integer,
};
use passes::solver::Limits;
use proptest::prelude::*;

/// Which position stands for another.
type Position = fn(usize) -> usize;

const LIMITS: Limits = Limits {
    seconds: 20.0,
    gap: 1e-5,
};

fn values(positions: &[usize]) -> Vec<ClassValueId> {
    positions.iter().map(|&v| ClassValueId(v)).collect()
}

/// An op that takes each value it needs from memory, or from the ops named beside it.
fn op(needs: &[(usize, &[usize])], makes: &[usize], compute: f64) -> FusedOp {
    let need = |&(value, inside): &(usize, &[usize])| Need {
        value: ClassValueId(value),
        inside: inside.to_vec(),
    };
    FusedOp {
        makes: values(makes),
        is_stored: true,
        needs: needs.iter().map(need).collect(),
        compute,
    }
}

/// A kernel without fused ops.
fn kernel(needs: &[usize], makes: &[usize], compute: f64) -> FusionGroup {
    let needs: Vec<(usize, &[usize])> = needs.iter().map(|&v| (v, &[][..])).collect();
    FusionGroup {
        ops: vec![op(&needs, makes, compute)],
        launch: 0.0,
    }
}

/// Value 0 is given; values cost no traffic.
fn problem(count: usize, wanted: &[usize], kernels: Vec<FusionGroup>) -> ExtractionProblem {
    ExtractionProblem {
        traffic: vec![0.0; count],
        given: [ClassValueId(0)].into(),
        wanted: values(wanted).into_iter().collect(),
        kernels,
        outputs: 6,
        impossible: vec![],
    }
}

fn select(problem: &ExtractionProblem) -> Result<Selection, ExtractError> {
    integer::Search::default().select(problem, &LIMITS)
}

fn seconds(problem: &ExtractionProblem) -> f64 {
    let selection = select(problem).unwrap();
    assert_eq!(problem.verify(&selection), Ok(()));
    assert!(selection.bound <= selection.seconds * (1.0 + 1e-6) + 1e-12);
    selection.seconds
}

#[test]
fn what_many_need_is_paid_for_once() {
    // 1 costs 5 and serves both 2 and 3; each could be made alone for 4.
    let shared = vec![
        kernel(&[0], &[1], 5.0),
        kernel(&[1], &[2], 1.0),
        kernel(&[1], &[3], 1.0),
        kernel(&[0], &[2], 4.0),
        kernel(&[0], &[3], 4.0),
    ];
    let shared = problem(4, &[2, 3], shared);
    assert!((seconds(&shared) - 7.0).abs() < 1e-9);
    let greedy = greedy::select(&shared).unwrap();
    assert!(
        (greedy.seconds - 8.0).abs() < 1e-9,
        "a tree's cost sees no sharing"
    );
}

#[test]
fn kernels_that_wait_for_each_other_are_not_chosen() {
    // 1 and 2 make each other for nothing; one must come from what is there.
    let circle = vec![
        kernel(&[2], &[1], 0.0),
        kernel(&[1], &[2], 0.0),
        kernel(&[0], &[1], 3.0),
        kernel(&[0], &[2], 2.0),
    ];
    assert!((seconds(&problem(3, &[1, 2], circle)) - 2.0).abs() < 1e-9);
}

/// An anchor makes 1 of 0; its fused op makes 2 of 1. Both could also run alone.
fn pair() -> ExtractionProblem {
    let fused = FusionGroup {
        ops: vec![op(&[(0, &[])], &[1], 1.0), op(&[(1, &[0])], &[2], 0.5)],
        launch: 0.25,
    };
    let mut alone = kernel(&[1], &[2], 0.5);
    alone.launch = 0.25;
    let mut problem = problem(3, &[2], vec![fused, alone]);
    problem.traffic = vec![1.0, 4.0, 0.5];
    problem
}

#[test]
fn a_value_taken_from_registers_costs_no_traffic() {
    assert!((seconds(&pair()) - (1.5 + 0.25)).abs() < 1e-9);
    let mut both = pair();
    both.wanted.insert(ClassValueId(1));
    assert!(
        (seconds(&both) - (1.0 + 4.0 + 0.5 + 0.25)).abs() < 1e-9,
        "what is stored is paid for once"
    );
}

#[test]
fn members_that_do_not_fit_together_are_kept_apart() {
    let mut apart = pair();
    apart.impossible.push((0, [0, 1].into()));
    let expected = (1.0f64 + 4.0) + 0.25 + (4.0 + 0.5) + 0.25;
    let found = seconds(&apart);
    assert!((found - expected).abs() < 1e-9, "{found}");
}

#[test]
fn a_kernel_stores_no_more_than_its_pointers_allow() {
    let mut narrow = pair();
    narrow.wanted.insert(ClassValueId(1));
    narrow.outputs = 1;
    let expected = (1.0f64 + 4.0) + 0.25 + (4.0 + 0.5) + 0.25;
    assert!((seconds(&narrow) - expected).abs() < 1e-9);
}

#[test]
fn a_value_that_nothing_makes_is_named() {
    let error = select(&problem(3, &[2], vec![kernel(&[0], &[1], 1.0)])).unwrap_err();
    assert_eq!(error.to_string(), "no kernel makes value 2, which is wanted");
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

fn chain(work: &[[f64; 2]], moves: &[[f64; 2]]) -> ExtractionProblem {
    let end = 2 * work.len() + 2;
    let mut kernels = vec![];
    for (i, (work, moves)) in work.iter().zip(moves).enumerate() {
        let at = |step: usize, device: usize| 2 * step + device;
        for device in [0, 1] {
            kernels.push(kernel(&[at(i, device)], &[at(i + 1, device)], work[device]));
            kernels.push(kernel(&[at(i, device)], &[at(i, 1 - device)], moves[device]));
        }
    }
    kernels.push(kernel(&[end - 2], &[end], 0.0));
    kernels.push(kernel(&[end - 1], &[end], 0.0));
    problem(end + 1, &[end], kernels)
}

/// The least seconds of all selections, each tried; but for those in which a kernel reads what needs its first op, which
/// another kernel then computes as well: they are no candidates.
fn by_trying_all(problem: &ExtractionProblem) -> f64 {
    let ops: Vec<(usize, usize)> = problem
        .kernels
        .iter()
        .enumerate()
        .flat_map(|(k, kernel)| (0..kernel.ops.len()).map(move |m| (k, m)))
        .collect();
    let mut least = f64::INFINITY;
    let before = problem.ancestors();
    let is_candidate = |taken: &Taken| {
        let own = &problem.kernels[taken.kernel].ops[0].makes;
        let needs_own = |v: ClassValueId| own.iter().any(|made| before[v.0].contains(*made));
        let late = |v: &ClassValueId| !problem.given.contains(v) && needs_own(*v);
        !taken.reads.iter().any(late) && taken.stores.len() <= problem.outputs
    };
    for set in 0u32..1 << ops.len() {
        let mut choice = FusionChoice::new();
        for (_, &(k, m)) in ops.iter().enumerate().filter(|(i, _)| set >> i & 1 == 1) {
            choice.entry(k).or_default().insert(m);
        }
        // Ops stand in kernels that run.
        if choice.values().all(|ops| ops.contains(&0))
            && let Ok(found) = problem.realise(&choice)
            && found.taken.iter().all(is_candidate)
        {
            least = least.min(found.seconds);
        }
    }
    least
}

/// Two random problems behind each other: whatever the second makes, it reads value 4 from memory.
fn tied_by_one_value(shape: &[(usize, usize, usize, f64, usize, f64)]) -> ExtractionProblem {
    let mut kernels: Vec<FusionGroup> = vec![];
    for (i, &(a, b, to, compute, fused, little)) in shape.iter().enumerate() {
        // The first half makes values 1 to 4 of 0 to 3, the second 5 to 7 of 4 to 6.
        let (from, into): (Position, Position) = match i % 2 {
            0 => (|v| v % 4, |v| 1 + v % 4),
            _ => (|v| 4 + v % 3, |v| 5 + v % 3),
        };
        let (a, b, to, fused) = (from(a), from(b), into(to), into(fused));
        kernels.push(FusionGroup {
            ops: vec![
                op(&[(a, &[]), (b, &[])], &[to], compute),
                op(&[(to, &[0]), (b, &[])], &[fused], little),
            ],
            launch: 0.1,
        });
    }
    kernels.push(kernel(&[0], &[4], 6.0));
    kernels.push(kernel(&[4], &[7], 6.0));
    let mut problem = problem(8, &[7], kernels);
    problem.traffic = vec![0.3, 1.0, 0.5, 2.0, 0.1, 0.7, 0.2, 0.4];
    problem
}

#[test]
fn a_value_that_is_always_in_memory_divides_a_problem() {
    let whole = tied_by_one_value(&[(0, 0, 0, 1.0, 1, 0.5), (0, 0, 0, 1.0, 1, 0.5)]);
    let forced = whole.forced();
    let in_memory: Vec<usize> = (0..8).filter(|&v| forced.contains(ClassValueId(v))).collect();
    assert_eq!(in_memory, [4, 7]);
    let parts = parts(&whole, &forced);
    assert_eq!(parts.len(), 2, "{parts:?}");
}

#[test]
fn equal_parts_are_solved_once() {
    // Ten times the pair of an anchor and a fused op, each of the value that the one before it makes.
    let mut kernels = vec![];
    for i in (0..20).step_by(2) {
        kernels.push(FusionGroup {
            ops: vec![
                op(&[(i, &[])], &[i + 1], 1.0),
                op(&[(i + 1, &[0])], &[i + 2], 0.5),
            ],
            launch: 0.25,
        });
        kernels.push(kernel(&[i + 1], &[i + 2], 0.5));
    }
    let mut chain = problem(21, &[20], kernels);
    chain.traffic = vec![0.1; 21];
    let mut search = integer::Search::default();
    let found = search.select(&chain, &LIMITS).unwrap();
    assert!((found.seconds - 10.0 * 1.75).abs() < 1e-9, "{found:?}");
    // The value given is not stored, those between are, and so is the last.
    assert_eq!(
        (search.effort.parts, search.effort.different),
        (10, 2),
        "{:?}",
        search.effort
    );
}

#[test]
fn members_that_wait_for_their_own_kernel_are_pruned() {
    // The fused op makes 3 of 1 and 2, and 2 is made of 1, which the anchor makes.
    let anchor = FusionGroup {
        ops: vec![op(&[(0, &[])], &[1], 1.0), op(&[(1, &[0]), (2, &[])], &[3], 0.5)],
        launch: 0.25,
    };
    let mut circular = problem(
        4,
        &[3],
        vec![anchor, kernel(&[1], &[2], 1.0), kernel(&[1, 2], &[3], 0.5)],
    );
    assert_eq!(circular.prune(), [vec![0], vec![0], vec![0]]);
    assert!((seconds(&circular) - 2.75).abs() < 1e-9);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn parts_together_find_the_optimum_and_no_bound_is_above_it(
        shape in proptest::collection::vec((0usize..12, 0usize..12, 0usize..12, 0.0f64..5.0, 0usize..12, 0.0f64..1.0), 4..6)
    ) {
        let problem = tied_by_one_value(&shape);
        let exact = by_trying_all(&problem);
        let selection = select(&problem).unwrap();
        prop_assert_eq!(problem.verify(&selection), Ok(()));
        prop_assert!(selection.bound <= exact * (1.0 + 1e-6), "bound {} of {exact}", selection.bound);
        prop_assert!((selection.seconds - exact).abs() <= 1e-4 * exact, "{} instead of {exact}", selection.seconds);
        let (forced, before) = (problem.forced(), problem.ancestors());
        let parts = parts(&problem, &forced);
        let counted: f64 = parts.iter().map(|part| part.counted_bound(&problem, &forced, &before)).sum();
        prop_assert!(counted <= exact * (1.0 + 1e-9), "{counted} counted of {exact}");
    }

    #[test]
    fn what_greedy_moves_change_is_what_a_selection_costs(
        shape in proptest::collection::vec((0usize..12, 0usize..12, 0usize..12, 0.0f64..5.0, 0usize..12, 0.0f64..1.0), 4..14)
    ) {
        let problem = tied_by_one_value(&shape);
        let greedy = greedy::select(&problem).unwrap();
        prop_assert_eq!(problem.verify(&greedy), Ok(()));
        let again: f64 = greedy.taken.iter().map(|taken| problem.seconds(taken)).sum();
        prop_assert!((greedy.seconds - again).abs() <= 1e-9 * again);
        let realised = problem.realise(&greedy.choice()).expect("it runs in its own order");
        prop_assert!((greedy.seconds - realised.seconds).abs() <= 1e-9 * again, "{greedy:?} {realised:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

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
        shape in proptest::collection::vec((0usize..6, 0usize..6, 1usize..7, 0.0f64..5.0, 1usize..7, 0.0f64..1.0), 4..12)
    ) {
        let mut kernels: Vec<FusionGroup> = shape
            .iter()
            .map(|&(a, b, to, compute, fused, little)| FusionGroup {
                ops: vec![
                    op(&[(a, &[]), (b, &[])], &[to], compute),
                    op(&[(to, &[0]), (b, &[])], &[fused], little),
                ],
                launch: 0.1,
            })
            .collect();
        kernels.extend((1..7).map(|v| kernel(&[0], &[v], 6.0)));
        let mut problem = problem(7, &[5, 6], kernels);
        problem.traffic = vec![0.3, 1.0, 0.5, 2.0, 0.1, 0.7, 0.2];
        let greedy = greedy::select(&problem).unwrap();
        prop_assert_eq!(problem.verify(&greedy), Ok(()));
        prop_assert!(seconds(&problem) <= greedy.seconds * (1.0 + 1e-6));
    }
}
