//! What of each value lies on which device, and how what is missing gets there: slices, transfers, joins.

use super::region::{contains, hull, join, overlap, read_within, touched, volume, write_within, written};
use ir::layout::Layout;
use ir::nest::{Nest, Source};
use ir::plan::{Part, Place, Role};
use ir::program::{DeviceIx, KernelCall, Program, Value, ValueId};

/// A box of a value, on a device.
#[derive(Clone, Debug)]
struct Piece {
    device: DeviceIx,
    part: Part,
    /// In the new program.
    id: ValueId,
    /// Whether a kernel made it here or the caller sets it: such pieces together are the value, others are copies.
    original: bool,
}

/// A program being placed: the new one, and the pieces of each value of the old.
pub struct Pieces<'a> {
    old: &'a Program,
    new: Program,
    pieces: Vec<Vec<Piece>>,
}

impl<'a> Pieces<'a> {
    /// Nothing is placed yet.
    pub fn new(old: &'a Program, devices: usize) -> Pieces<'a> {
        Pieces {
            old,
            new: Program {
                values: vec![],
                kernels: vec![],
                arena_bytes: vec![0; devices],
                ..old.clone()
            },
            pieces: vec![vec![]; old.values.len()],
        }
    }

    /// The new program.
    pub fn finish(self) -> Program {
        self.new
    }

    /// Gives each device the boxes of parameters, state and inputs that the kernels' parts on it read.
    pub fn place_leaves<'k>(&mut self, parts: impl Iterator<Item = (&'k KernelCall, DeviceIx, &'k Nest)>) {
        let devices = self.new.arena_bytes.len();
        let mut wanted: Vec<Vec<Option<Part>>> = vec![vec![None; devices]; self.old.values.len()];
        for (call, device, nest) in parts {
            for read in &nest.reads {
                let id = operand_of(call, read.source);
                let part = touched(nest, read, &self.old.value(id).extents);
                let here = &mut wanted[id.0][device.0];
                *here = Some(
                    here.as_ref()
                        .map_or_else(|| part.clone(), |other| hull(other, &part)),
                );
            }
        }
        for (v, mut wanted) in wanted.into_iter().enumerate() {
            let value = &self.old.values[v];
            if value.alias.is_some() || matches!(value.role, Role::Temporary | Role::Output { .. }) {
                continue;
            }
            let parts: Vec<&Part> = wanted.iter().flatten().collect();
            if !Part::cover(&parts, &value.extents) {
                wanted[0] = Some(Part::whole(&value.extents));
            }
            let role = value.role.clone();
            for (device, part) in wanted.into_iter().enumerate() {
                if let Some(part) = part {
                    self.add(ValueId(v), DeviceIx(device), &part, role.clone(), true);
                }
            }
        }
    }

    /// Brings what the parts of a kernel read and others have computed.
    pub fn fetch(&mut self, call: &KernelCall, parts: &[(DeviceIx, Nest)]) {
        for (device, nest) in parts {
            for (&id, part) in call.operands.iter().zip(self.needs(call, nest)) {
                self.need(id, *device, &part);
            }
        }
    }

    /// Adds the parts of a kernel, and what brings updated parameters to where they lie.
    pub fn run(&mut self, call: &KernelCall, parts: &[(DeviceIx, Nest)]) {
        for (device, nest) in parts {
            let mut part = KernelCall {
                nest: nest.clone(),
                operands: vec![],
                results: vec![],
                ..call.clone()
            };
            for (i, (&id, box_)) in call.operands.iter().zip(self.needs(call, nest)).enumerate() {
                let piece = self.need(id, *device, &box_);
                let reads = part.nest.reads.iter_mut();
                reads
                    .filter(|read| read.source == Source::Operand(i))
                    .for_each(|read| read_within(read, &piece.part));
                part.operands.push(piece.id);
            }
            for (&id, output) in call.results.iter().zip(&mut part.nest.outputs) {
                let box_ = written(nest, output).expect("parts write boxes");
                write_within(output, &box_);
                let role = self.old.value(id).role.clone();
                let made = self.add(id, *device, &box_, role, true);
                self.new.values[made.0].alias = self.home(id, *device, &box_);
                part.results.push(made);
            }
            self.new.kernels.push(part);
        }
        for &id in &call.results {
            self.bring_home(id);
        }
    }

    /// The box of every operand that a part of a kernel reads.
    fn needs(&self, call: &KernelCall, nest: &Nest) -> Vec<Part> {
        let needs = call.operands.iter().enumerate().map(|(i, &id)| {
            let reads = nest.reads.iter().filter(|read| read.source == Source::Operand(i));
            let boxes = reads.map(|read| touched(nest, read, &self.old.value(id).extents));
            let all = boxes.reduce(|a, b| hull(&a, &b));
            all.expect("operands that nobody reads were dropped")
        });
        needs.collect()
    }

    /// The piece of the parameter that a value updates, if exactly this box of it lies on the device.
    fn home(&self, id: ValueId, device: DeviceIx, part: &Part) -> Option<ValueId> {
        let parameter = self.old.value(id).alias?;
        let mut pieces = self.pieces[self.old.owner(parameter).0].iter();
        let home = pieces.find(|piece| piece.original && piece.device == device && piece.part == *part)?;
        Some(home.id)
    }

    /// Copies an updated parameter into those of its pieces that no kernel has written.
    fn bring_home(&mut self, id: ValueId) {
        let Some(parameter) = self.old.value(id).alias else {
            return;
        };
        let homes = self.pieces[self.old.owner(parameter).0].clone();
        for home in homes.into_iter().filter(|piece| piece.original) {
            let is_home = |value: &Value| value.alias == Some(home.id);
            if self.pieces[id.0]
                .iter()
                .any(|piece| is_home(self.new.value(piece.id)))
            {
                continue;
            }
            let piece = self.need(id, home.device, &home.part);
            let name = self.old.value(id).name.clone();
            let nest = join(
                self.old.value(id).dtype,
                &home.part,
                std::slice::from_ref(&piece.part),
            );
            let made = self.add(id, home.device, &home.part, Role::Temporary, false);
            self.new.values[made.0].alias = Some(home.id);
            self.call(format!("update {name}"), nest, vec![piece.id], made);
        }
    }

    /// A piece on this device that holds a box of a value, brought there if it is not yet.
    fn need(&mut self, id: ValueId, device: DeviceIx, part: &Part) -> Piece {
        let holds = |piece: &&Piece| contains(&piece.part, part);
        let pieces = &self.pieces[id.0];
        if let Some(here) = pieces.iter().filter(holds).find(|piece| piece.device == device) {
            return here.clone();
        }
        // Not a copy that another device joined: its parts are nearer.
        if let Some(there) = pieces.iter().filter(holds).find(|piece| piece.original) {
            let there = there.clone();
            let slice = self.slice(id, &there, part);
            return self.transfer(id, &slice, device);
        }
        let mut from = vec![];
        let mut joined = 0;
        for piece in self.pieces[id.0].clone().iter().filter(|piece| piece.original) {
            let Some(shared) = overlap(&piece.part, part) else {
                continue;
            };
            joined += volume(&shared);
            from.push(match piece.device == device {
                true => piece.clone(),
                false => {
                    let slice = self.slice(id, piece, &shared);
                    self.transfer(id, &slice, device)
                }
            });
        }
        assert_eq!(
            joined,
            volume(part),
            "the pieces that were computed are all of a value"
        );
        let boxes: Vec<Part> = from.iter().map(|piece| piece.part.clone()).collect();
        let nest = join(self.old.value(id).dtype, part, &boxes);
        let operands = from.iter().map(|piece| piece.id).collect();
        let made = self.add(id, device, part, Role::Temporary, false);
        self.call(format!("join {}", self.old.value(id).name), nest, operands, made);
        self.pieces[id.0].last().expect("it was just added").clone()
    }

    /// A piece on the same device that is little more than a box of this one.
    fn slice(&mut self, id: ValueId, piece: &Piece, part: &Part) -> Piece {
        if 4 * volume(part) > 3 * volume(&piece.part) {
            return piece.clone();
        }
        let mut pieces = self.pieces[id.0].iter();
        if let Some(known) = pieces.find(|other| other.device == piece.device && other.part == *part) {
            return known.clone();
        }
        let nest = join(self.old.value(id).dtype, part, std::slice::from_ref(&piece.part));
        let made = self.add(id, piece.device, part, Role::Temporary, false);
        self.call(
            format!("slice {}", self.old.value(id).name),
            nest,
            vec![piece.id],
            made,
        );
        self.pieces[id.0].last().expect("it was just added").clone()
    }

    /// The same piece on another device.
    fn transfer(&mut self, id: ValueId, piece: &Piece, device: DeviceIx) -> Piece {
        let nest = Nest::copy(self.old.value(id).dtype, &piece.part.shape);
        let made = self.add(id, device, &piece.part, Role::Temporary, false);
        let label = format!("transfer {}", self.old.value(id).name);
        self.call(label, nest, vec![piece.id], made);
        self.pieces[id.0].last().expect("it was just added").clone()
    }

    fn call(&mut self, label: String, nest: Nest, operands: Vec<ValueId>, result: ValueId) {
        self.new
            .kernels
            .push(KernelCall::new(label, nest, operands, vec![result]));
    }

    /// A new value for a piece of an old one.
    fn add(&mut self, id: ValueId, device: DeviceIx, part: &Part, role: Role, original: bool) -> ValueId {
        let old = self.old.value(id);
        let is_interface = role.shape().is_some();
        let made = ValueId(self.new.values.len());
        self.new.values.push(Value {
            name: match is_interface {
                true => old.name.clone(),
                false => format!("{}@{}", old.name, device.0),
            },
            dtype: old.dtype,
            extents: part.shape.clone(),
            layout: Layout::row_major(part.shape.len()),
            role,
            alias: None,
            window: false,
            place: Place::Own,
            device,
            part: (is_interface && *part != Part::whole(&old.extents)).then(|| part.clone()),
        });
        self.pieces[id.0].push(Piece {
            device,
            part: part.clone(),
            id: made,
            original,
        });
        made
    }
}

fn operand_of(call: &KernelCall, source: Source) -> ValueId {
    let Source::Operand(i) = source else {
        unreachable!("Program::verify rejects kernels that read stages")
    };
    call.operands[i]
}
