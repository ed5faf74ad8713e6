//! float32 and float64, for which planning and running are compiled in this crate.

use crate::document::Document;
use crate::error::Result;
use crate::kernels::{Elem, Isa};
use crate::packed::{Packed, Weights};
use crate::plan::{Input, Plan};
use crate::run::Call;
use crate::threads::Team;
use crate::workspace::Workspace;

/// A precision of the engine: `f32` or `f64`.
#[allow(private_bounds, reason = "callers name a precision, and never call these functions")]
pub trait Precision: Compiled {}

impl<E: Compiled> Precision for E {}

/// The doors to all kernels. What a crate uses of another's generic functions it compiles itself; these are none, so that
/// nobody who uses this crate compiles all kernels for all instruction sets again.
pub(crate) trait Compiled: Elem {
    /// [`Plan::sharing`]
    fn plan(
        document: &Document,
        packed: &Packed<Self>,
        fingerprint: u64,
        rate: f64,
        isa: Isa,
        team: &Team,
    ) -> Result<Plan<Self>>;

    /// [`Plan::advance`]
    fn advance(
        plan: &Plan<Self>,
        work: &mut Workspace<Self>,
        team: &Team,
        call: &Call<'_>,
        states: &mut [Self],
        input: Input<'_, Self>,
        output: &mut [Self],
    );

    /// [`Plan::advance_blocks`]
    #[allow(clippy::too_many_arguments)]
    fn advance_blocks(
        plan: &Plan<Self>,
        works: &mut [Workspace<Self>],
        block: usize,
        team: &Team,
        call: &Call<'_>,
        states: &mut [Self],
        input: Input<'_, Self>,
        output: &mut [Self],
    );
}

// Not for the tests beside the kernels, which call these one by one and would have all of them compiled once more.
#[cfg(not(test))]
macro_rules! compiled {
    ($($precision:ty)*) => {
        $(impl Compiled for $precision {
            #[inline(never)]
            fn plan(
                document: &Document,
                packed: &Packed<Self>,
                fingerprint: u64,
                rate: f64,
                isa: Isa,
                team: &Team,
            ) -> Result<Plan<Self>> {
                Plan::sharing(document, packed, fingerprint, rate, isa, team)
            }

            #[inline(never)]
            fn advance(
                plan: &Plan<Self>,
                work: &mut Workspace<Self>,
                team: &Team,
                call: &Call<'_>,
                states: &mut [Self],
                input: Input<'_, Self>,
                output: &mut [Self],
            ) {
                plan.advance(work, team, call, states, input, output);
            }

            #[inline(never)]
            fn advance_blocks(
                plan: &Plan<Self>,
                works: &mut [Workspace<Self>],
                block: usize,
                team: &Team,
                call: &Call<'_>,
                states: &mut [Self],
                input: Input<'_, Self>,
                output: &mut [Self],
            ) {
                plan.advance_blocks(works, block, team, call, states, input, output);
            }
        })*
    };
}
#[cfg(not(test))]
compiled!(f32 f64);

impl<E: Precision> Plan<E> {
    /// Plans `document` for a rate, which multiplies every step size. `team` shares the work of planning.
    ///
    /// # Errors
    /// [`Error::Value`](crate::Error::Value) where the rate is no positive number or a transform has its pole at it;
    /// [`Error::Unsupported`](crate::Error::Unsupported) where a layer has no step size, or is not stable at it;
    /// [`Error::Document`](crate::Error::Document) where a layer is not stable at rate 1.
    pub fn new(document: &Document, rate: f64, isa: Isa, team: &Team) -> Result<Self> {
        E::plan(document, &Packed::new(Weights::AsGiven), document.fingerprint(), rate, isa, team)
    }
}
