use super::super::Node;
use super::super::fields::Child;
use super::super::node::{Layer, Memory, node};
use crate::error::Result;

node! {
    /// y = left(x) * right(x), element by element.
    "gate" Gate {
        /// One factor.
        left: Box<Node> = "left" Child;
        /// The other.
        right: Box<Node> = "right" Child;
    }
}

impl Layer for Gate {
    fn check(&self) -> Result<(), (&'static str, String)> {
        Ok(())
    }

    fn branches(&self) -> Vec<&Node> {
        vec![&*self.left, &*self.right]
    }

    fn d_in(&self) -> Option<usize> {
        self.left.d_in().or_else(|| self.right.d_in())
    }

    fn d_out(&self, d_in: usize, path: &str) -> Result<usize> {
        let left = self.left.d_out_at(d_in, &format!("{path}.left"))?;
        let right = self.right.d_out_at(d_in, &format!("{path}.right"))?;
        if left != right {
            return Err(
                self.mismatch(path, format!("expected branches of equal width, found left {left}, right {right}"))
            );
        }
        Ok(left)
    }

    fn memory(&self) -> Memory<'_> {
        Memory::None
    }
}
