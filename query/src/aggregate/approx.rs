//! Approximate distinct values a group.
//!
//! The rows of few groups go to registers that lie side by side; they become sketches when states settle. Codes are
//! looked at once for every pair of group and code, and their values are hashed once.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BinaryArray, Int64Array};
use arrow::datatypes::DataType;

use super::Input;
use super::Values;
use super::exact::take;
use super::known::{each_of_array, for_each};
use super::pairs::Pairs;
use super::scalars::{Kind, kind_for};
use crate::QueryError;
use crate::sketch::{HyperLogLog, Registers};

/// Registers lie side by side for at most so many groups.
const REGISTER_GROUPS_MAX: usize = 32;
/// And only once a call brings so many rows.
const REGISTER_ROWS_MIN: usize = 512;

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct ApproxDistinct {
    kind: Kind,
    sketches: Vec<HyperLogLog>,
    registers: Registers,
    pairs: Pairs,
    /// The hash of each code's value, `None` before it is needed.
    hashes: Vec<Option<u64>>,
}

impl ApproxDistinct {
    pub(crate) fn new(data_type: &DataType) -> Result<ApproxDistinct, QueryError> {
        Ok(ApproxDistinct {
            kind: kind_for("approx_distinct", data_type)?,
            sketches: Vec::new(),
            registers: Registers::default(),
            pairs: Pairs::default(),
            hashes: Vec::new(),
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.sketches.len()
    }

    pub(crate) fn resize(&mut self, group_count: usize) {
        if !self.registers.is_empty() {
            if group_count > REGISTER_GROUPS_MAX {
                self.settle_registers();
            } else {
                self.registers.resize(group_count);
            }
        }
        self.sketches.resize(group_count, HyperLogLog::default());
    }

    pub(crate) fn update(&mut self, groups: &[u32], input: &Input<'_>) -> Result<(), QueryError> {
        if let Values::Codes(codes, distinct) = input.values {
            return self.update_codes(groups, codes, distinct, input);
        }
        if self.registers.is_empty()
            && self.sketches.len() <= REGISTER_GROUPS_MAX
            && groups.len() >= REGISTER_ROWS_MIN
        {
            self.registers.resize(self.sketches.len());
        }
        let (sketches, registers) = (&mut self.sketches, &mut self.registers);
        if registers.is_empty() {
            for_each(groups, input, self.kind, |group, value| {
                sketches[group as usize].add_hash(value.hash());
            })
        } else {
            for_each(groups, input, self.kind, |group, value| registers.add_hash(group, value.hash()))
        }
    }

    fn update_codes(
        &mut self,
        groups: &[u32],
        codes: &[u32],
        distinct: &ArrayRef,
        input: &Input<'_>,
    ) -> Result<(), QueryError> {
        if !self.pairs.knows(distinct) {
            self.hashes.clear();
            self.hashes.resize(distinct.len(), None);
        }
        let fresh = self.pairs.fresh(self.sketches.len(), groups, codes, distinct, input.validity);
        let hashes = &mut self.hashes;
        let mut unknown: Vec<u32> = Vec::new();
        for (_, code) in &fresh {
            let hash = &mut hashes[*code as usize];
            if hash.is_none() {
                *hash = Some(0);
                unknown.push(*code);
            }
        }
        each_of_array(
            &unknown,
            distinct,
            self.kind,
            None,
            |row| unknown[row] as usize,
            |code, value| {
                hashes[code as usize] = Some(value.hash());
            },
        )?;
        for (group, code) in fresh {
            if let Some(hash) = hashes[code as usize] {
                self.sketches[group as usize].add_hash(hash);
            }
        }
        Ok(())
    }

    fn settle_registers(&mut self) {
        let registers = std::mem::take(&mut self.registers);
        if !registers.is_empty() {
            for (group, sketch) in self.sketches.iter_mut().enumerate() {
                sketch.merge_registers(registers.of(group));
            }
        }
    }

    /// Ends what updates left open.
    pub(crate) fn settle(&mut self) {
        self.settle_registers();
        self.pairs = Pairs::default();
        self.hashes = Vec::new();
    }

    /// Adds some groups of another: its group `groups.start + i` is our group `to[i]`.
    pub(crate) fn merge(&mut self, other: &ApproxDistinct, groups: Range<usize>, to: &[u32]) {
        for (index, group) in groups.zip(to) {
            let ours = &mut self.sketches[*group as usize];
            ours.merge(&other.sketches[index]);
            if !other.registers.is_empty() {
                ours.merge_registers(other.registers.of(index));
            }
        }
    }

    pub(crate) fn append(&mut self, mut other: ApproxDistinct) {
        self.settle();
        other.settle();
        self.sketches.append(&mut other.sketches);
    }

    /// These groups of settled ones.
    pub(crate) fn take(&self, groups: &[u32]) -> ApproxDistinct {
        ApproxDistinct {
            kind: self.kind,
            sketches: take(&self.sketches, groups),
            registers: Registers::default(),
            pairs: Pairs::default(),
            hashes: Vec::new(),
        }
    }

    /// The estimates of settled ones.
    pub(crate) fn finish(&self) -> ArrayRef {
        let estimates = self.sketches.iter().map(|sketch| sketch.estimate() as i64);
        Arc::new(Int64Array::from_iter_values(estimates))
    }

    /// Settled ones for the wire.
    pub(crate) fn to_array(&self) -> ArrayRef {
        Arc::new(BinaryArray::from_iter_values(self.sketches.iter().map(HyperLogLog::to_bytes)))
    }

    pub(crate) fn from_array(
        empty: ApproxDistinct,
        array: &BinaryArray,
    ) -> Result<ApproxDistinct, QueryError> {
        let sketches = array.iter().flatten().map(HyperLogLog::from_bytes).collect::<Result<_, _>>()?;
        Ok(ApproxDistinct { sketches, ..empty })
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.sketches.iter().map(|sketch| 40 + sketch.memory_bytes()).sum::<usize>()
            + self.registers.memory_bytes()
            + self.pairs.memory_bytes()
            + self.hashes.capacity() * 16
    }
}
