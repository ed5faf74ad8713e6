//! Every kind of node, and what each of them tells of itself.

use serde_json::{Map, Value, json};

use super::fields::{Fields, Tensors, Writer, Written};
use super::nodes::*;
use super::systems::Systems;
use crate::error::{Error, Result};

const KIND_KEY: &str = "node";
const MAX_DEPTH: usize = 100;

/// What [`node!`](crate::document::node) makes of the list of a node's fields.
pub(crate) trait Listed: Sized {
    /// What the tree calls its kind.
    const KIND: &'static str;

    /// Reads its fields.
    fn read(name: String, fields: &mut Fields<'_>) -> Result<Self>;

    /// Writes them.
    fn write(&self, writer: &mut Writer<'_>);

    /// Each field's name and description.
    fn schema() -> Vec<(&'static str, Value)>;

    /// Its place in the checkpoint, which may be empty.
    fn name(&self) -> &str;
}

/// What a node remembers from one sample to the next.
pub(crate) enum Memory<'a> {
    /// Nothing.
    None,
    /// Some samples, or a sum of them.
    Samples,
    /// The states of linear time-invariant systems.
    Systems(&'a dyn Systems),
    /// States of a system that its input chooses.
    Selective,
}

/// What a node tells of itself. There are no defaults: a new kind must say all of it.
pub(crate) trait Layer: Listed {
    /// Where its fields do not fit one another: which, and what was expected and found.
    fn check(&self) -> std::result::Result<(), (&'static str, String)>;

    /// The nodes directly below it.
    fn branches(&self) -> Vec<&Node>;

    /// The width of the input that it takes; `None` where it takes any.
    fn d_in(&self) -> Option<usize>;

    /// The width of what it gives for an input of width `d_in`, which is the one it takes; `path` is its place in the
    /// tree.
    fn d_out(&self, d_in: usize, path: &str) -> Result<usize>;

    /// What it remembers from one sample to the next, apart from the nodes below it.
    fn memory(&self) -> Memory<'_>;

    /// The error that it does not fit its input.
    fn mismatch(&self, path: &str, what: impl std::fmt::Display) -> Error {
        Error::Document(format!("{}: {what}", label(Self::KIND, self.name(), path)))
    }
}

/// How errors call a node: its kind and its name, or its place where it has no name.
pub(super) fn label(kind: &str, name: &str, path: &str) -> String {
    match (name, path) {
        ("", "") => kind.to_string(),
        ("", path) => format!("{kind} at {path}"),
        (name, _) => format!("{kind} {name:?}"),
    }
}

/// Defines a node: its kind, and a row for each field with its name in the tree and how it is read and written.
/// `derived` fields are computed from the others and not stored.
macro_rules! node {
    (
        $(#[$doc:meta])*
        $kind:literal $node:ident {
            $($(#[$field_doc:meta])* $field:ident: $type:ty = $key:literal $as:expr;)*
        }
        $(derived { $($(#[$derived_doc:meta])* $derived:ident: $derived_type:ty;)* })?
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone)]
        pub struct $node {
            /// Its place in the checkpoint.
            pub name: String,
            $($(#[$field_doc])* pub $field: $type,)*
            $($($(#[$derived_doc])* #[doc(hidden)] pub $derived: $derived_type,)*)?
        }

        impl $crate::document::node::Listed for $node {
            const KIND: &'static str = $kind;

            #[allow(unused_variables, reason = "some nodes have no fields")]
            fn read(name: String, fields: &mut $crate::document::fields::Fields<'_>) -> $crate::error::Result<Self> {
                Ok(Self {
                    name,
                    $($field: $crate::document::fields::Field::<$type>::read(&$as, fields, $key)?,)*
                    $($($derived: Default::default(),)*)?
                })
            }

            #[allow(unused_variables, reason = "some nodes have no fields")]
            fn write(&self, writer: &mut $crate::document::fields::Writer<'_>) {
                $($crate::document::fields::Field::<$type>::write(&$as, writer, $key, &self.$field);)*
            }

            fn schema() -> Vec<(&'static str, serde_json::Value)> {
                #[allow(unused_mut, reason = "some nodes have no fields")]
                let mut fields = Vec::new();
                $(fields.extend($crate::document::fields::Field::<$type>::describe(&$as, $key));)*
                fields
            }

            fn name(&self) -> &str {
                &self.name
            }
        }
    };
}
pub(crate) use node;

/// The kinds of node, listed once. It also defines `on!`, which calls the same code on whichever kind a node is.
macro_rules! kinds {
    ($dollar:tt $($kind:ident)*) => {
        /// A layer: maps (..., d_in) to (..., d_out) at each sample; those that remember do so along time.
        #[derive(Debug, Clone)]
        #[allow(missing_docs, reason = "each variant is documented at the struct of the same name")]
        pub enum Node { $($kind($kind),)* }

        impl Node {
            /// Reads the fields of a node of the kind, if it is known.
            fn read_kind(kind: &str, name: String, fields: &mut Fields<'_>) -> Option<Result<Self>> {
                $(if kind == $kind::KIND {
                    return Some($kind::read(name, fields).map(Node::$kind));
                })*
                None
            }

            /// Calls `f` with each kind and its fields.
            fn each_kind(mut f: impl FnMut(&'static str, Vec<(&'static str, Value)>)) {
                $(f($kind::KIND, $kind::schema());)*
            }
        }

        macro_rules! on {
            ($dollar self:expr, $dollar node:ident => $dollar body:expr) => {
                match $dollar self { $(Node::$kind($dollar node) => $dollar body,)* }
            };
        }
    };
}

kinds! {
    $ Linear Embedding Norm Activation Glu Conv1d Pool Diagonal Dplr Dense DiagonalMimo Linoss Selective Ssd Sequential Residual Gate
}

impl Node {
    /// The node in the tree's value at `path`.
    pub(super) fn read(value: Value, path: &str, depth: usize, tensors: &mut Tensors) -> Result<Node> {
        if depth > MAX_DEPTH {
            return Err(Error::Document(format!("{path}: the model's tree is nested more than {MAX_DEPTH} deep")));
        }
        let Value::Object(mut values) = value else {
            return Err(Error::Document(format!("{path}: expected a node, found {value}")));
        };
        let Some(Value::String(kind)) = values.remove(KIND_KEY) else {
            return Err(Error::Document(format!(
                "{path}: expected a node with its kind under {KIND_KEY:?}, found none"
            )));
        };
        let name = match values.remove("name") {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(name)) => name,
            Some(other) => return Err(Error::Document(format!("{path}: name: expected a string, found {other}"))),
        };
        let label = label(&kind, &name, path);
        let mut fields = Fields { label, path: path.into(), depth, values, sizes: Vec::new(), tensors };
        let node = Node::read_kind(&kind, name, &mut fields)
            .unwrap_or_else(|| Err(Error::Document(format!("{path}: unknown node kind {kind:?}"))))?;
        if let Err((key, what)) = on!(&node, n => n.check()) {
            return Err(fields.fail(key, what));
        }
        match fields.values.keys().next() {
            Some(key) => Err(fields.fail(key, "expected no such field")),
            None => Ok(node),
        }
    }

    /// The tree's value for it, whose tensors' names begin with `path`.
    pub(super) fn write(&self, path: &str, tensors: &mut Written) -> Value {
        let values =
            Map::from_iter([(KIND_KEY.to_string(), json!(self.kind())), ("name".to_string(), json!(self.name()))]);
        let mut writer = Writer { path: path.into(), values, tensors };
        on!(self, n => n.write(&mut writer));
        Value::Object(writer.values)
    }

    /// Every kind with its fields: `{kind: {field: {"type": ..., "axes": ..., "default": ...}}}`.
    pub(crate) fn schema() -> Value {
        let mut kinds = Map::new();
        Node::each_kind(|kind, fields| {
            let fields = fields.into_iter().map(|(key, field)| (key.to_string(), field));
            kinds.insert(kind.into(), Value::Object(fields.collect()));
        });
        Value::Object(kinds)
    }

    /// Its place in the checkpoint, which may be empty.
    pub fn name(&self) -> &str {
        on!(self, n => n.name())
    }

    /// What the tree calls its kind.
    pub fn kind(&self) -> &'static str {
        fn kind<N: Listed>(_: &N) -> &'static str {
            N::KIND
        }
        on!(self, n => kind(n))
    }

    /// How errors call it: its kind and name.
    pub fn label(&self) -> String {
        label(self.kind(), self.name(), "")
    }

    /// The nodes directly below it.
    pub fn branches(&self) -> Vec<&Node> {
        on!(self, n => n.branches())
    }

    /// What it remembers from one sample to the next, apart from the nodes below it.
    pub(crate) fn memory(&self) -> Memory<'_> {
        on!(self, n => n.memory())
    }

    /// Whether it, or a node below it, remembers anything from one sample to the next.
    pub fn remembers(&self) -> bool {
        !matches!(self.memory(), Memory::None) || self.branches().into_iter().any(Node::remembers)
    }

    /// Its linear time-invariant systems, if it has any.
    pub(crate) fn systems(&self) -> Option<&dyn Systems> {
        match self.memory() {
            Memory::Systems(systems) => Some(systems),
            Memory::None | Memory::Samples | Memory::Selective => None,
        }
    }

    /// The width of what it gives for an input of width `d_in`.
    ///
    /// # Errors
    /// [`Error::Document`] where it, or a node below it, does not take that width; never for the widths that
    /// a parsed Document's nodes meet.
    pub fn d_out(&self, d_in: usize) -> Result<usize> {
        self.d_out_at(d_in, "")
    }

    pub(super) fn d_out_at(&self, d_in: usize, path: &str) -> Result<usize> {
        match self.d_in() {
            Some(expected) if expected != d_in && self.branches().is_empty() => {
                let node = label(self.kind(), self.name(), path);
                Err(Error::Document(format!("{node}: expected an input of width {expected}, found {d_in}")))
            }
            _ => on!(self, n => n.d_out(d_in, path)),
        }
    }

    /// The width of the input that it takes; `None` where it takes any.
    pub(super) fn d_in(&self) -> Option<usize> {
        on!(self, n => n.d_in())
    }

    /// The node that meets the input.
    pub(super) fn first(&self) -> &Node {
        match self {
            Node::Sequential(n) if !n.children.is_empty() => n.children[0].first(),
            _ => self,
        }
    }

    /// It and all nodes below it, in the order in which they run.
    pub fn walk<'a>(&'a self, f: &mut impl FnMut(&'a Node)) {
        f(self);
        self.branches().into_iter().for_each(|node| node.walk(f));
    }
}
