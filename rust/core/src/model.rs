//! A model: a Document with what all its plans share.

use crate::document::Document;
use crate::error::{Error, Result};
use crate::kernels::Isa;
use crate::packed::{Packed, Weights};
use crate::plan::Plan;
use crate::precision::Precision;
use crate::threads::Team;
use std::sync::{Arc, Mutex, PoisonError};

/// Plans that are kept for later calls, that at rate 1 among them.
const KEPT: usize = 4;

/// A model in one precision, with plans for the rates that are asked for. Threads may share it.
///
/// The matrices of its mixing layers are packed once for all rates, and nothing else holds their numbers.
#[derive(Debug)]
pub struct Model<E> {
    document: Document,
    packed: Packed<E>,
    fingerprint: u64,
    isa: Isa,
    regular: Arc<Plan<E>>,
    /// At other rates, the one used last at the end.
    others: Mutex<Vec<(f64, Arc<Plan<E>>)>>,
}

impl<E: Precision> Model<E> {
    /// The model of a Document, planned for rate 1.
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub fn new(document: Document, isa: Isa, team: &Team) -> Result<Self> {
        Self::with_weights(document, Weights::AsGiven, isa, team)
    }

    /// As [`Model::new`], with the matrices of mixing layers held so.
    ///
    /// # Errors
    /// As [`Plan::new`], and [`Error::Value`] for weights that are not as they were given in another precision than
    /// float32.
    pub fn with_weights(document: Document, weights: Weights, isa: Isa, team: &Team) -> Result<Self> {
        if weights != Weights::AsGiven && size_of::<E>() != size_of::<f32>() {
            let wanted = match weights {
                Weights::AsGiven | Weights::Float32 => "float32",
                Weights::Bfloat16 => "bfloat16",
                Weights::Int8 => "int8",
            };
            return Err(Error::Value(format!("weights: expected a float32 engine for {wanted}, found {}", E::NAME)));
        }
        let packed = Packed::new(weights);
        let rounded = match weights {
            Weights::AsGiven | Weights::Float32 => 0,
            Weights::Bfloat16 => 1,
            Weights::Int8 => 2,
        };
        let fingerprint = document.fingerprint() ^ rounded;
        let regular = Arc::new(E::plan(&document, &packed, fingerprint, 1.0, isa, team)?);
        packed.replace_raw()?;
        Ok(Self { document, packed, fingerprint, isa, regular, others: Mutex::new(Vec::new()) })
    }

    /// The instruction set that its plans run on.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The model's parameters.
    pub fn document(&self) -> &Document {
        &self.document
    }

    /// The plan at a rate, which multiplies every step size.
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub fn plan(&self, rate: f64, team: &Team) -> Result<Arc<Plan<E>>> {
        if rate == 1.0 {
            return Ok(Arc::clone(&self.regular));
        }
        // One thread plans at a time: a rate that several ask for is planned once.
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        let known = others.iter().position(|(known, _)| *known == rate).map(|i| others.remove(i));
        let entry = match known {
            Some(entry) => entry,
            None => {
                let plan = E::plan(&self.document, &self.packed, self.fingerprint, rate, self.isa, team)?;
                (rate, Arc::new(plan))
            }
        };
        let plan = Arc::clone(&entry.1);
        others.push(entry);
        if others.len() >= KEPT {
            others.remove(0);
        }
        Ok(plan)
    }
}
