//! Small numbers for large things, so that e-nodes are cheap to compare, to hash and to order.

use ir::nest::Nest;
use ir::ops::Op;
use std::collections::HashMap;
use std::marker::PhantomData;

/// An operation with its attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OpId(pub u32);

/// A nest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NestId(pub u32);

impl From<u32> for OpId {
    fn from(number: u32) -> OpId {
        OpId(number)
    }
}

impl From<u32> for NestId {
    fn from(number: u32) -> NestId {
        NestId(number)
    }
}

impl From<OpId> for usize {
    fn from(id: OpId) -> usize {
        id.0 as usize
    }
}

impl From<NestId> for usize {
    fn from(id: NestId) -> usize {
        id.0 as usize
    }
}

/// What two equal things have in common: a key that can be hashed, where the thing itself cannot.
pub trait Key {
    /// The same for equal things only.
    fn key(&self) -> String;
}

impl Key for Op {
    fn key(&self) -> String {
        format!("{self:?}")
    }
}

/// Nests hold numbers of type f64, which print so that different ones read differently.
impl Key for Nest {
    fn key(&self) -> String {
        format!("{self:?}")
    }
}

/// Things by number; equal ones have the same.
#[derive(Clone, Debug)]
pub struct Interner<I, T> {
    items: Vec<T>,
    known: HashMap<String, u32>,
    id: PhantomData<I>,
}

impl<I, T> Default for Interner<I, T> {
    fn default() -> Interner<I, T> {
        Interner {
            items: vec![],
            known: HashMap::new(),
            id: PhantomData,
        }
    }
}

impl<I: From<u32>, T: Key> Interner<I, T> {
    /// The number of a thing, a new one if it is new.
    pub fn intern(&mut self, item: T) -> I {
        let next = self.items.len() as u32;
        let number = *self.known.entry(item.key()).or_insert(next);
        if number == next {
            self.items.push(item);
        }
        I::from(number)
    }
}

impl<I: Into<usize>, T> std::ops::Index<I> for Interner<I, T> {
    type Output = T;

    fn index(&self, id: I) -> &T {
        &self.items[id.into()]
    }
}
