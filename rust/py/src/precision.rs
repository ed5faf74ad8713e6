//! Plans of either precision.

use ssmrt_core::Plan as Core;
use std::sync::Arc;

/// A plan of either precision.
pub enum Any {
    F32(Arc<Core<f32>>),
    F64(Arc<Core<f64>>),
}

impl From<Arc<Core<f32>>> for Any {
    fn from(plan: Arc<Core<f32>>) -> Self {
        Any::F32(plan)
    }
}

impl From<Arc<Core<f64>>> for Any {
    fn from(plan: Arc<Core<f64>>) -> Self {
        Any::F64(plan)
    }
}

/// Calls the same code on a plan of either precision.
macro_rules! on {
    ($any:expr, $plan:ident => $body:expr) => {
        match &$any {
            $crate::precision::Any::F32($plan) => $body,
            $crate::precision::Any::F64($plan) => $body,
        }
    };
}
pub(crate) use on;
