use super::super::Node;
use super::super::fields::Children;
use super::super::node::{Layer, Memory, node};
use crate::error::Result;

node! {
    /// One after the other; an empty one is the identity.
    "sequential" Sequential {
        /// In the order in which they run.
        children: Vec<Node> = "children" Children;
    }
}

impl Layer for Sequential {
    fn check(&self) -> Result<(), (&'static str, String)> {
        Ok(())
    }

    fn branches(&self) -> Vec<&Node> {
        self.children.iter().collect()
    }

    fn d_in(&self) -> Option<usize> {
        // What halves the channels before the first layer of a certain width takes twice as many.
        let mut factor = 1;
        for child in &self.children {
            match child.d_in() {
                Some(width) => return Some(width * factor),
                None => factor *= 1024 / child.d_out(1024).ok()?.max(1),
            }
        }
        None
    }

    fn d_out(&self, d_in: usize, path: &str) -> Result<usize> {
        let mut children = self.children.iter().enumerate();
        children.try_fold(d_in, |width, (i, child)| child.d_out_at(width, &format!("{path}.children.{i}")))
    }

    fn memory(&self) -> Memory<'_> {
        Memory::None
    }
}
