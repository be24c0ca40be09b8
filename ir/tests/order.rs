//! Plans on two devices: the waits that are made, and the faults that the check finds.

use ir::DType;
use ir::order::waits;
use ir::plan::{Allocation, Buffer, Command, CommandKind, CompiledKernel, Mode, Plan, Region, Role, VERSION};

fn buffer(name: &str, device: usize, role: Role, allocation: Allocation) -> Buffer {
    Buffer {
        name: name.into(),
        dtype: DType::F32,
        bytes: 64,
        device,
        role,
        allocation,
        shard: None,
    }
}

fn part(offset: usize, count: usize) -> Option<Region> {
    Some(Region {
        offset: vec![offset],
        shape: vec![count],
    })
}

/// Device 0 makes `a` and overwrites its bytes later; device 1 gets a copy of `a` and works on. `x` lies in two halves.
fn plan() -> Plan {
    let input = Role::Input { shape: vec![32] };
    let mut buffers = vec![
        buffer("x", 0, input.clone(), Allocation::Dedicated),
        buffer("x", 1, input, Allocation::Dedicated),
        buffer("a", 0, Role::Temporary, Allocation::Arena(0)),
        buffer("a@1", 1, Role::Temporary, Allocation::Arena(0)),
        buffer("b", 0, Role::Temporary, Allocation::Arena(0)),
        buffer("y", 1, Role::Output { shape: vec![16] }, Allocation::Dedicated),
    ];
    (buffers[0].shard, buffers[1].shard) = (part(0, 16), part(16, 16));
    let transfer = Command {
        label: "transfer".into(),
        device: 1,
        work: CommandKind::Transfer { from: 2, to: 3 },
        after: vec![0],
    };
    let mut step = vec![
        Command::kernel("make", 0, 0, vec![0, 2]),
        Command::kernel("use the place of a@1", 1, 0, vec![1, 3]),
        transfer,
        Command::kernel("overwrite", 0, 0, vec![0, 4]),
        Command::kernel("again", 0, 0, vec![0, 4]),
        Command::kernel("work", 1, 0, vec![3, 5]),
    ];
    step[2].after = vec![1, 0];
    step[3].after = vec![2];
    step[5].after = vec![2];
    Plan {
        version: VERSION,
        model: "m".into(),
        mode: Mode::Infer,
        batch: 1,
        devices: vec!["cpu".into(), "cpu".into()],
        arena_bytes: vec![64, 64],
        buffers,
        kernels: vec![CompiledKernel {
            symbol: "k".into(),
            tasks: 1,
            threads: 0,
            shared_bytes: 0,
            argument_bytes: vec![64, 64],
            operands: 1,
            flops: 0,
            bytes: 0,
        }],
        prepack: vec![],
        step,
        flops: 0,
    }
}

#[test]
fn what_touches_the_same_bytes_waits_and_nothing_else_does() {
    let plan = plan();
    plan.check().unwrap();
    let stated: Vec<Vec<usize>> = plan.step.iter().map(|launch| launch.after.clone()).collect();
    assert_eq!(waits(&plan), stated);
}

#[test]
fn a_wait_may_be_implied_by_others() {
    // If kernels only read, neither `make` nor `overwrite` concerns the transfer: it waits for the reader of what it writes,
    // and the next reader waits for it.
    let mut plan = plan();
    plan.step.insert(1, Command::kernel("read a", 0, 0, vec![2, 0]));
    plan.kernels[0].operands = 2;
    plan.step.iter_mut().for_each(|launch| launch.after.clear());
    let expected = [vec![], vec![], vec![], vec![2], vec![], vec![], vec![3]];
    assert_eq!(waits(&plan), expected);
    plan.kernels[0].operands = 0;
    plan.step.retain(|launch| launch.label != "use the place of a@1");
    // Every argument is written: the last kernel before the transfer is the one to wait for.
    assert_eq!(waits(&plan)[2], [1]);
}

#[test]
fn planted_faults_are_found() {
    type Damage = fn(&mut Plan);
    let damages: [(Damage, &str); 14] = [
        (|p| p.step[2].after = vec![1], "transfer does not wait for make"),
        (
            |p| p.step[2].after = vec![0],
            "transfer does not wait for use the place",
        ),
        (
            |p| p.step[3].after.clear(),
            "overwrite does not wait for transfer",
        ),
        (|p| p.step[5].after.clear(), "work does not wait for transfer"),
        (|p| p.step[2].after.push(2), "waits for 2, which is not before it"),
        (|p| p.step[0].after.push(5), "waits for 5, which is not before it"),
        (|p| p.step[2].device = 0, "leads from device 0 to 1"),
        (
            |p| p.step[2].work = CommandKind::Transfer { from: 2, to: 4 },
            "leads from device 0 to 0",
        ),
        (
            |p| p.step[2].work = CommandKind::Transfer { from: 2, to: 30 },
            "names buffer 30",
        ),
        (|p| p.buffers[2].bytes = 32, "needs 64 bytes in a"),
        (
            |p| p.step[5] = Command::kernel("stray", 1, 0, vec![2, 5]),
            "on device 0",
        ),
        (|p| p.buffers[1].shard = part(20, 12), "holds"),
        (
            |p| p.buffers[1].shard = part(0, 16),
            "the parts of x are not all of it",
        ),
        (
            |p| p.prepack = vec![p.step[2].clone()],
            "does not stay on its device",
        ),
    ];
    for (damage, said) in damages {
        let mut plan = plan();
        damage(&mut plan);
        let error = plan.check().unwrap_err().to_string();
        assert!(
            error.contains(said) || (said == "holds" && error.contains("x of shape")),
            "{said:?} is not in {error}"
        );
    }
}

#[test]
fn two_tensors_of_one_name_are_parts_of_one() {
    let mut plan = plan();
    plan.buffers[1].device = 0;
    assert!(
        plan.check()
            .unwrap_err()
            .to_string()
            .contains("two tensors are named x")
    );
    let mut plan = self::plan();
    plan.buffers[1].role = Role::Input { shape: vec![33] };
    assert!(
        plan.check()
            .unwrap_err()
            .to_string()
            .contains("two tensors are named x")
    );
}
