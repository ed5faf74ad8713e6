use serde_json::{Value, json};

use super::super::Node;
use super::super::array::Array;
use super::super::fields::{Child, Field, Fields, Number, Optional, Real, Writer};
use super::super::node::{Layer, Memory, node};
use crate::error::Result;

/// One factor, or one a channel.
#[derive(Debug, Clone, PartialEq)]
pub enum Factor {
    /// For every channel.
    All(f64),
    /// (d,)
    Each(Array),
}

/// A number, or an array (d,).
struct NumberOrArray;

const NUMBER: Number = Number { default: 1.0, least: f64::MIN, most: f64::MAX };

impl Field<Factor> for NumberOrArray {
    fn read(&self, fields: &mut Fields<'_>, key: &'static str) -> Result<Factor> {
        if fields.values.get(key).is_some_and(Value::is_object) {
            return Real("d").read(fields, key).map(Factor::Each);
        }
        NUMBER.read(fields, key).map(Factor::All)
    }

    fn write(&self, writer: &mut Writer<'_>, key: &'static str, value: &Factor) {
        match value {
            Factor::All(factor) => NUMBER.write(writer, key, factor),
            Factor::Each(factors) => Real("d").write(writer, key, factors),
        }
    }

    fn describe(&self, key: &'static str) -> Vec<(&'static str, Value)> {
        vec![(key, json!({"type": "number or real", "axes": "d", "default": NUMBER.default}))]
    }
}

node! {
    /// y = alpha skip(x) + beta child(x).
    "residual" Residual {
        /// The branch.
        child: Box<Node> = "child" Child;
        /// `None` is the identity.
        skip: Option<Box<Node>> = "skip" Optional(Child);
        /// The factor of skip(x).
        alpha: f64 = "alpha" NUMBER;
        /// The factor of child(x).
        beta: Factor = "beta" NumberOrArray;
    }
}

impl Layer for Residual {
    fn check(&self) -> Result<(), (&'static str, String)> {
        Ok(())
    }

    fn branches(&self) -> Vec<&Node> {
        std::iter::once(&*self.child).chain(self.skip.as_deref()).collect()
    }

    fn d_in(&self) -> Option<usize> {
        self.child.d_in().or_else(|| self.skip.as_ref()?.d_in())
    }

    fn d_out(&self, d_in: usize, path: &str) -> Result<usize> {
        let skip = match &self.skip {
            Some(skip) => skip.d_out_at(d_in, &format!("{path}.skip"))?,
            None => d_in,
        };
        let child = self.child.d_out_at(d_in, &format!("{path}.child"))?;
        if skip != child {
            return Err(
                self.mismatch(path, format!("expected branches of equal width, found skip {skip}, child {child}"))
            );
        }
        match &self.beta {
            Factor::Each(beta) if beta.data.len() != child => {
                Err(self.mismatch(path, format!("beta: expected shape ({child},), found ({},)", beta.data.len())))
            }
            Factor::Each(_) | Factor::All(_) => Ok(child),
        }
    }

    fn memory(&self) -> Memory<'_> {
        Memory::None
    }
}
