//! What of each value lies on which device, and how what is missing gets there: slices, transfers, joins.

use crate::operands::operand;
use crate::region::{contains, hull, join, overlap, read_within, touched, volume, write_within, written};
use ir::layout::Layout;
use ir::nest::{Nest, Source};
use ir::plan::{Allocation, Region, Role};
use ir::program::{DeviceId, Kernel, Program, Value, ValueId};

/// A region of a value, on a device.
#[derive(Clone, Debug)]
struct Shard {
    device: DeviceId,
    region: Region,
    /// In the new program.
    id: ValueId,
    /// Whether a kernel made it here or the caller sets it: such shards together are the value, others are copies.
    original: bool,
}

/// A program being placed: the new one, and the shards of each value of the old.
pub struct Shards<'a> {
    old: &'a Program,
    new: Program,
    shards: Vec<Vec<Shard>>,
}

impl<'a> Shards<'a> {
    /// Nothing is placed yet.
    pub fn new(old: &'a Program, devices: usize) -> Shards<'a> {
        Shards {
            old,
            new: Program {
                values: vec![],
                kernels: vec![],
                arena_bytes: vec![0; devices],
                ..old.clone()
            },
            shards: vec![vec![]; old.values.len()],
        }
    }

    /// The new program.
    pub fn finish(self) -> Program {
        self.new
    }

    /// Gives each device the regions of parameters, state and inputs that the kernels' parts on it read.
    pub fn place_leaves<'k>(&mut self, parts: impl Iterator<Item = (&'k Kernel, DeviceId, &'k Nest)>) {
        let devices = self.new.arena_bytes.len();
        let mut wanted: Vec<Vec<Option<Region>>> = vec![vec![None; devices]; self.old.values.len()];
        for (call, device, nest) in parts {
            for read in &nest.reads {
                let id = operand(call, read);
                let region = touched(nest, read, &self.old.value(id).extents);
                let here = &mut wanted[id.0][device.0];
                *here = Some(
                    here.as_ref()
                        .map_or_else(|| region.clone(), |other| hull(other, &region)),
                );
            }
        }
        for (v, mut wanted) in wanted.into_iter().enumerate() {
            let value = &self.old.values[v];
            if value.alias.is_some() || matches!(value.role, Role::Temporary | Role::Output { .. }) {
                continue;
            }
            let parts: Vec<&Region> = wanted.iter().flatten().collect();
            if !Region::cover(&parts, &value.extents) {
                wanted[0] = Some(Region::whole(&value.extents));
            }
            let role = value.role.clone();
            for (device, region) in wanted.into_iter().enumerate() {
                if let Some(region) = region {
                    self.add(ValueId(v), DeviceId(device), &region, role.clone(), true);
                }
            }
        }
    }

    /// Brings what the parts of a kernel read and others have computed.
    pub fn fetch(&mut self, call: &Kernel, parts: &[(DeviceId, Nest)]) {
        for (device, nest) in parts {
            for (&id, part) in call.operands.iter().zip(self.required_regions(call, nest)) {
                self.require(id, *device, &part);
            }
        }
    }

    /// Adds the parts of a kernel, and what transfers updated parameters to where they lie.
    pub fn run(&mut self, call: &Kernel, parts: &[(DeviceId, Nest)]) {
        for (device, nest) in parts {
            let mut part = Kernel {
                nest: nest.clone(),
                operands: vec![],
                results: vec![],
                ..call.clone()
            };
            for (i, (&id, region)) in call
                .operands
                .iter()
                .zip(self.required_regions(call, nest))
                .enumerate()
            {
                let shard = self.require(id, *device, &region);
                let reads = part.nest.reads.iter_mut();
                reads
                    .filter(|read| read.source == Source::Operand(i))
                    .for_each(|read| read_within(read, &shard.region));
                part.operands.push(shard.id);
            }
            for (&id, output) in call.results.iter().zip(&mut part.nest.outputs) {
                let region = written(nest, output).expect("parts write regions");
                write_within(output, &region);
                let role = self.old.value(id).role.clone();
                let made = self.add(id, *device, &region, role, true);
                self.new.values[made.0].alias = self.home(id, *device, &region);
                part.results.push(made);
            }
            self.new.kernels.push(part);
        }
        for &id in &call.results {
            self.transfer_home(id);
        }
    }

    /// The region of every operand that a part of a kernel reads.
    fn required_regions(&self, call: &Kernel, nest: &Nest) -> Vec<Region> {
        let required_regions = call.operands.iter().enumerate().map(|(i, &id)| {
            let reads = nest.reads.iter().filter(|read| read.source == Source::Operand(i));
            let regions = reads.map(|read| touched(nest, read, &self.old.value(id).extents));
            let all = regions.reduce(|a, b| hull(&a, &b));
            all.expect("operands that nobody reads were dropped")
        });
        required_regions.collect()
    }

    /// The shard of the parameter that a value updates, if exactly this region of it lies on the device.
    fn home(&self, id: ValueId, device: DeviceId, region: &Region) -> Option<ValueId> {
        let parameter = self.old.value(id).alias?;
        let mut shards = self.shards[self.old.owner(parameter).0].iter();
        let home =
            shards.find(|shard| shard.original && shard.device == device && shard.region == *region)?;
        Some(home.id)
    }

    /// Copies an updated parameter into those of its shards that no kernel has written.
    fn transfer_home(&mut self, id: ValueId) {
        let Some(parameter) = self.old.value(id).alias else {
            return;
        };
        let homes = self.shards[self.old.owner(parameter).0].clone();
        for home in homes.into_iter().filter(|shard| shard.original) {
            let is_home = |value: &Value| value.alias == Some(home.id);
            if self.shards[id.0]
                .iter()
                .any(|shard| is_home(self.new.value(shard.id)))
            {
                continue;
            }
            let shard = self.require(id, home.device, &home.region);
            let name = self.old.value(id).name.clone();
            let nest = join(
                self.old.value(id).dtype,
                &home.region,
                std::slice::from_ref(&shard.region),
            );
            let made = self.add(id, home.device, &home.region, Role::Temporary, false);
            self.new.values[made.0].alias = Some(home.id);
            self.call(format!("update {name}"), nest, vec![shard.id], made);
        }
    }

    /// A shard on this device that holds a region of a value, transferred there if it is not yet.
    fn require(&mut self, id: ValueId, device: DeviceId, region: &Region) -> Shard {
        let holds = |shard: &&Shard| contains(&shard.region, region);
        let shards = &self.shards[id.0];
        if let Some(here) = shards.iter().filter(holds).find(|shard| shard.device == device) {
            return here.clone();
        }
        // Not a copy that another device joined: its parts are nearer.
        if let Some(there) = shards.iter().filter(holds).find(|shard| shard.original) {
            let there = there.clone();
            let slice = self.slice(id, &there, region);
            return self.transfer(id, &slice, device);
        }
        let mut from = vec![];
        let mut joined = 0;
        for shard in self.shards[id.0].clone().iter().filter(|shard| shard.original) {
            let Some(shared) = overlap(&shard.region, region) else {
                continue;
            };
            joined += volume(&shared);
            from.push(match shard.device == device {
                true => shard.clone(),
                false => {
                    let slice = self.slice(id, shard, &shared);
                    self.transfer(id, &slice, device)
                }
            });
        }
        assert_eq!(
            joined,
            volume(region),
            "the shards that were computed are all of a value"
        );
        let regions: Vec<Region> = from.iter().map(|shard| shard.region.clone()).collect();
        let nest = join(self.old.value(id).dtype, region, &regions);
        let operands = from.iter().map(|shard| shard.id).collect();
        let made = self.add(id, device, region, Role::Temporary, false);
        self.call(format!("join {}", self.old.value(id).name), nest, operands, made);
        self.shards[id.0].last().expect("it was just added").clone()
    }

    /// A shard on the same device that is little more than a region of this one.
    fn slice(&mut self, id: ValueId, shard: &Shard, region: &Region) -> Shard {
        if 4 * volume(region) > 3 * volume(&shard.region) {
            return shard.clone();
        }
        let mut shards = self.shards[id.0].iter();
        if let Some(incumbent) = shards.find(|other| other.device == shard.device && other.region == *region)
        {
            return incumbent.clone();
        }
        let nest = join(
            self.old.value(id).dtype,
            region,
            std::slice::from_ref(&shard.region),
        );
        let made = self.add(id, shard.device, region, Role::Temporary, false);
        self.call(
            format!("slice {}", self.old.value(id).name),
            nest,
            vec![shard.id],
            made,
        );
        self.shards[id.0].last().expect("it was just added").clone()
    }

    /// The same shard on another device.
    fn transfer(&mut self, id: ValueId, shard: &Shard, device: DeviceId) -> Shard {
        let nest = Nest::copy(self.old.value(id).dtype, &shard.region.shape);
        let made = self.add(id, device, &shard.region, Role::Temporary, false);
        let label = format!("transfer {}", self.old.value(id).name);
        self.call(label, nest, vec![shard.id], made);
        self.shards[id.0].last().expect("it was just added").clone()
    }

    fn call(&mut self, label: String, nest: Nest, operands: Vec<ValueId>, result: ValueId) {
        self.new
            .kernels
            .push(Kernel::new(label, nest, operands, vec![result]));
    }

    /// A new value for a shard of an old one.
    fn add(&mut self, id: ValueId, device: DeviceId, region: &Region, role: Role, original: bool) -> ValueId {
        let old = self.old.value(id);
        let is_interface = role.shape().is_some();
        let made = ValueId(self.new.values.len());
        self.new.values.push(Value {
            name: match is_interface {
                true => old.name.clone(),
                false => format!("{}@{}", old.name, device.0),
            },
            dtype: old.dtype,
            extents: region.shape.clone(),
            layout: Layout::row_major(region.shape.len()),
            role,
            alias: None,
            batch_slice: false,
            allocation: Allocation::Dedicated,
            device,
            shard: (is_interface && *region != Region::whole(&old.extents)).then(|| region.clone()),
        });
        self.shards[id.0].push(Shard {
            device,
            region: region.clone(),
            id: made,
            original,
        });
        made
    }
}
