//! Values that are alive together never share bytes, and the arena is not much larger than it must be.

use ir::layout::Layout;
use ir::live::liveness;
use ir::nest::Nest;
use ir::plan::{Allocation, Mode, Role};
use ir::program::{DeviceId, Kernel, Program, Value, ValueId};
use ir::types::DType;
use passes::memory::plan;
use proptest::prelude::*;

fn value(elements: usize) -> Value {
    Value {
        name: "v".into(),
        dtype: DType::F32,
        extents: vec![elements],
        layout: Layout::row_major(1),
        role: Role::Temporary,
        alias: None,
        batch_slice: false,
        allocation: Allocation::Dedicated,
        device: DeviceId::default(),
        shard: None,
    }
}

fn call(operands: Vec<ValueId>, results: Vec<ValueId>, elements: usize) -> Kernel {
    let nest = Nest::copy(DType::F32, &[elements]);
    Kernel::new("k", nest, operands, results)
}

fn program(values: Vec<Value>, kernels: Vec<Kernel>) -> Program {
    let model = "m".into();
    Program {
        model,
        mode: Mode::Infer,
        batch: 1,
        values,
        kernels,
        arena_bytes: vec![0],
        flops: 0,
    }
}

/// Kernel `k` makes value `k` of the given size and reads the earlier values it is told to.
fn chain(sizes: &[usize], reads: &[Vec<usize>]) -> Program {
    let kernel = |k: usize| {
        let before = |r: &usize| (k > 0).then(|| ValueId(r % k));
        call(
            reads[k].iter().filter_map(before).collect(),
            vec![ValueId(k)],
            sizes[k],
        )
    };
    program(
        sizes.iter().map(|&n| value(n)).collect(),
        (0..sizes.len()).map(kernel).collect(),
    )
}

fn range(program: &Program, id: ValueId) -> (u64, u64) {
    let value = program.value(id);
    let Allocation::Arena(from) = value.allocation else {
        panic!("a temporary lies in the arena")
    };
    (
        from,
        from + value.layout.strides(&value.extents).elements as u64 * value.dtype.bytes() as u64,
    )
}

proptest! {
    #[test]
    fn values_alive_together_share_no_bytes(
        sizes in prop::collection::vec(1usize..5000, 1..40),
        reads in prop::collection::vec(prop::collection::vec(any::<usize>(), 0..4), 40),
    ) {
        let mut program = chain(&sizes, &reads);
        let packing = plan(&mut program);
        prop_assert_eq!(program.arena_bytes[0], packing.arena_bytes);
        prop_assert!(packing.arena_bytes >= packing.lower_bound);
        let live = liveness(&program);
        prop_assert_eq!(live.len(), sizes.len());
        for (i, a) in live.iter().enumerate() {
            let (from, to) = range(&program, a.value);
            prop_assert!(from % 64 == 0 && to <= program.arena_bytes[0]);
            for b in live[..i].iter().filter(|b| b.overlaps(a)) {
                let (other_from, other_to) = range(&program, b.value);
                prop_assert!(to <= other_from || other_to <= from, "{a:?} and {b:?} overlap");
            }
        }
    }
}

#[test]
fn a_chain_needs_room_for_two_neighbours() {
    let reads: Vec<Vec<usize>> = (0..6usize).map(|k| vec![k.wrapping_sub(1)]).collect();
    let mut program = chain(&[1000, 1000, 1000, 1000, 1000, 1000], &reads);
    let packing = plan(&mut program);
    assert_eq!((packing.arena_bytes, packing.lower_bound), (2 * 4032, 2 * 4032));
}

#[test]
fn a_result_that_nobody_reads_lives_during_its_kernel() {
    let mut program = chain(&[16, 16], &[vec![], vec![]]);
    let packing = plan(&mut program);
    assert_eq!(packing.arena_bytes, 64);
    assert_eq!(
        liveness(&program)
            .iter()
            .map(|l| (l.first, l.last))
            .collect::<Vec<_>>(),
        [(0, 0), (1, 1)]
    );
}

#[test]
fn a_halo_counts() {
    let mut padded = value(10);
    padded.layout.padding = vec![(3, 4)];
    let mut program = program(vec![padded], vec![call(vec![], vec![ValueId(0)], 10)]);
    assert_eq!(plan(&mut program).arena_bytes, 128);
}

#[test]
fn prepared_values_and_shared_buffers_stay_out_of_the_arena() {
    let role = |constant| Role::Parameter {
        shape: vec![8],
        init: ir::plan::Init::Constant(constant),
    };
    let parameter = Value {
        role: role(0.0),
        ..value(8)
    };
    let next = Value {
        alias: Some(ValueId(0)),
        batch_slice: false,
        ..value(8)
    };
    let mut prepack = call(vec![ValueId(0)], vec![ValueId(1)], 8);
    prepack.prepack = true;
    let update = call(vec![ValueId(1)], vec![ValueId(2)], 8);
    let mut program = program(vec![parameter, value(8), next], vec![prepack, update]);
    assert_eq!(plan(&mut program).arena_bytes, 0);
    assert_eq!(program.values[1].role, Role::Packed);
    assert!(
        program
            .values
            .iter()
            .all(|v| v.allocation == Allocation::Dedicated)
    );
}
