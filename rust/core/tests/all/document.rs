//! What a Document is read from, and what is refused, with which words.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;
use safetensors::{Dtype, tensor::TensorView};
use serde_json::{Value, json};
use ssmrt_core::internals::document::{Factor, Node};
use ssmrt_core::{Array, Disc, Document, Error, Isa, Plan, Team};

/// A tree and its tensors, to be written after something was changed in them.
#[derive(Clone)]
struct Draft {
    tree: Value,
    tensors: BTreeMap<String, (Dtype, Vec<usize>, Vec<f64>)>,
}

impl Draft {
    fn new(d_input: usize, d_output: usize) -> Draft {
        let tree = json!({"version": 1, "d_input": d_input, "d_output": d_output, "meta": {"arch": "test"}});
        Draft { tree, tensors: BTreeMap::new() }
    }

    fn with_root(mut self, root: Value) -> Draft {
        self.tree["root"] = root;
        self
    }

    fn real(&mut self, shape: &[usize], value: f64) -> Value {
        self.put("real", Dtype::F64, shape.to_vec(), value)
    }

    fn float32(&mut self, shape: &[usize], value: f64) -> Value {
        self.put("real", Dtype::F32, shape.to_vec(), value)
    }

    /// Every number is `value` (1 + i).
    fn complex(&mut self, shape: &[usize], value: f64) -> Value {
        self.put("complex", Dtype::F64, [shape, &[2]].concat(), value)
    }

    fn put(&mut self, what: &str, dtype: Dtype, shape: Vec<usize>, value: f64) -> Value {
        let name = format!("t{}", self.tensors.len());
        let size = shape.iter().product();
        self.tensors.insert(name.clone(), (dtype, shape, vec![value; size]));
        json!({what: name})
    }

    fn bytes(&self) -> Vec<u8> {
        let raw: Vec<_> = self
            .tensors
            .iter()
            .map(|(name, (dtype, shape, data))| {
                let bytes: Vec<u8> = match dtype {
                    Dtype::F32 => data.iter().flat_map(|x| (*x as f32).to_le_bytes()).collect(),
                    _ => data.iter().flat_map(|x| x.to_le_bytes()).collect(),
                };
                (name, *dtype, shape.clone(), bytes)
            })
            .collect();
        let views = raw
            .iter()
            .map(|(name, dtype, shape, bytes)| (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
        let metadata = HashMap::from([("ssmrt".to_string(), self.tree.to_string())]);
        safetensors::serialize(views, Some(metadata)).unwrap()
    }

    fn parse(&self) -> Result<Document, Error> {
        Document::parse(self.bytes())
    }

    fn refusal(&self) -> String {
        match self.parse() {
            Err(Error::Document(message)) => message,
            other => panic!("expected a refusal, found {other:?}"),
        }
    }
}

fn diagonal(draft: &mut Draft, outputs: usize, channels: usize) -> Value {
    json!({
        "node": "diagonal", "name": "s4d", "C": draft.complex(&[outputs, channels, 3], 0.5),
        "D": draft.real(&[outputs, channels], 1.0), "dt": draft.real(&[channels, 3], 0.1), "C_reverse": null,
        "kernel_length": 100, "head_major": true, "allow_unstable": false,
        "A": draft.complex(&[2, 3], -0.5), "B": draft.complex(&[2, 3], 1.0),
        "disc": "bilinear", "alpha": 0.5, "conjugate_pairs": false,
    })
}

/// A model with every kind of node.
fn every_kind() -> Draft {
    let mut d = Draft::new(1, 3);
    let embedding = json!({"node": "embedding", "name": "emb", "weight": d.float32(&[7, 4], 0.25)});
    let norm = json!({"node": "norm", "name": "norm", "kind": "layer", "weight": d.real(&[4], 1.0), "bias": null,
                      "eps": 1e-5, "shift": 0.0});
    let s4d = diagonal(&mut d, 2, 4);
    let glu = json!({"node": "glu", "name": "", "gate": "silu"});
    let residual = json!({"node": "residual", "name": "", "alpha": 1.0, "beta": d.real(&[4], 0.5),
                          "child": {"node": "sequential", "name": "", "children": [s4d, glu]}, "skip": null});
    let dplr = json!({
        "node": "dplr", "name": "s4", "C": d.complex(&[1, 4, 3], 0.5), "D": d.real(&[1, 4], 1.0),
        "dt": d.real(&[4], 0.1), "A": d.complex(&[4, 3], -0.5), "P": d.complex(&[2, 4, 3], 0.1),
        "B": d.complex(&[4, 3], 1.0), "Q": d.complex(&[2, 4, 3], 0.1), "C_reverse": d.complex(&[1, 4, 3], 0.5),
    });
    let dense = json!({
        "node": "dense", "name": "lssl", "C": d.real(&[1, 4, 3], 0.5), "D": d.real(&[1, 4], 1.0),
        "dt": d.real(&[4], 0.1), "A": d.real(&[1, 3, 3], -0.5), "B": d.real(&[1, 3], 1.0), "alpha": 1,
    });
    let mimo = json!({
        "node": "diagonal_mimo", "name": "lru", "A": d.complex(&[3], 0.5), "B": d.complex(&[3, 4], 1.0),
        "C": d.complex(&[4, 3], 1.0), "D": d.real(&[4], 1.0), "dt": null, "disc": "discrete",
    });
    let conv = json!({"node": "conv1d", "name": "conv", "weight": d.real(&[4, 3], 1.0), "bias": d.real(&[4], 0.0)});
    let selective = json!({
        "node": "selective", "name": "s6", "A": d.real(&[4, 3], -1.0), "x_proj": d.real(&[8, 4], 0.1),
        "dt_proj": d.real(&[4, 2], 0.1), "dt_bias": d.real(&[4], 0.0), "D": d.real(&[4], 1.0),
    });
    let gate = json!({"node": "gate", "name": "", "left": conv, "right": selective});
    let pool = json!({"node": "pool", "name": "pool", "mode": "mean"});
    let linear =
        json!({"node": "linear", "name": "decoder", "weight": d.real(&[3, 4], 1.0), "bias": d.real(&[3], 0.0)});
    let softmax = json!({"node": "activation", "name": "", "function": "log_softmax", "size": 3});
    d.with_root(json!({"node": "sequential", "name": "", "children":
        [embedding, norm, residual, dplr, dense, mimo, gate, pool, linear, softmax]}))
}

#[test]
fn every_kind_of_node_is_read() {
    let document = every_kind().parse().unwrap();
    assert_eq!((document.d_input(), document.d_output(), document.tokens()), (1, 3, true));
    assert_eq!(document.facts().meta["arch"], "test");
    let kinds: Vec<_> = document.root().branches().iter().map(|node| node.kind()).collect();
    let expected = "embedding norm residual dplr dense diagonal_mimo gate pool linear activation";
    assert_eq!(kinds.join(" "), expected);

    let children = document.root().branches();
    let Node::Residual(residual) = children[2] else { panic!() };
    assert_eq!(residual.beta, Factor::Each(Array::new(&[4], vec![0.5; 4])));
    let Node::Diagonal(s4d) = residual.child.branches()[0] else { panic!() };
    assert_eq!((s4d.ssm.outputs(), s4d.ssm.channels(), s4d.ssm.modes(), s4d.systems()), (2, 4, 3, 2));
    assert_eq!((s4d.ssm.kernel_length, s4d.ssm.head_major, s4d.conjugate_pairs), (Some(100), true, false));
    assert_eq!(s4d.a.row(1)[2], num_complex::Complex64::new(-0.5, -0.5));
    assert_eq!(s4d.ssm.step(3, 2), 0.1);
    let Node::Dplr(s4) = children[3] else { panic!() };
    assert_eq!((s4.rank(), s4.systems(), s4.ssm.c_reverse.is_some(), s4.q.is_some()), (2, 4, true, true));
    let Node::Embedding(embedding) = children[0] else { panic!() };
    assert_eq!(embedding.weight.to_vec().unwrap(), vec![0.25; 28]);
}

#[test]
fn left_out_fields_have_the_defaults_of_the_python_package() {
    let mut draft = Draft::new(4, 4);
    let mut node = diagonal(&mut draft, 1, 4);
    for key in ["C_reverse", "kernel_length", "head_major", "allow_unstable", "disc", "alpha", "conjugate_pairs"] {
        node.as_object_mut().unwrap().remove(key);
    }
    let document = draft.with_root(node).parse().unwrap();
    let Node::Diagonal(node) = document.root() else { panic!() };
    assert_eq!((node.disc, node.alpha, node.conjugate_pairs), (Disc::Zoh, 0.5, true));
    assert_eq!((node.ssm.kernel_length, node.ssm.head_major, node.ssm.allow_unstable), (None, false, false));
}

/// Sets the field at a JSON pointer, adding it where there is none.
fn set(draft: &mut Draft, pointer: &str, value: Value) {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    match draft.tree.pointer_mut(parent).unwrap() {
        Value::Array(items) => items[key.parse::<usize>().unwrap()] = value,
        object => object[key] = value,
    }
}

#[test]
fn a_wrong_field_is_named_with_what_was_expected() {
    let root = "/root/children";
    let s4d = "/root/children/2/child/children/0";
    for (pointer, value, words) in [
        ("/version".to_string(), json!(2), "expected format version 1, found 2"),
        ("/d_input".into(), json!(0), "d_input: expected 1 to"),
        ("/d_input".into(), json!(2), "embedding \"emb\": expected an input of width 1, found 2"),
        ("/d_output".into(), json!(4), "d_output: expected 3"),
        ("/meta".into(), json!({"arch": 1}), "damaged"),
        ("/extra".into(), json!(1), "unknown field `extra`"),
        ("/root".into(), json!([]), "root: expected a node"),
        (format!("{root}/1/node"), json!("batchnorm"), "root.children.1: unknown node kind \"batchnorm\""),
        (format!("{root}/1/node"), json!(null), "root.children.1: expected a node with its kind"),
        (
            format!("{root}/1/kind"),
            json!("group"),
            "norm \"norm\": kind: expected one of \"layer\", \"rms\", \"affine\", found \"group\"",
        ),
        (format!("{root}/1/eps"), json!(-1.0), "norm \"norm\": eps: expected a finite number >= 0, found -1"),
        (format!("{root}/1/momentum"), json!(0.1), "norm \"norm\": momentum: expected no such field"),
        (format!("{s4d}/disc"), json!("foh"), "diagonal \"s4d\": disc: expected one of \"zoh\""),
        (format!("{s4d}/disc"), json!("discrete"), "diagonal \"s4d\": dt: expected null"),
        (format!("{s4d}/dt"), json!(null), "diagonal \"s4d\": dt: expected an array, found null"),
        (format!("{s4d}/alpha"), json!(1.5), "diagonal \"s4d\": alpha: expected 0 to 1, found 1.5"),
        (format!("{s4d}/kernel_length"), json!(0), "diagonal \"s4d\": kernel_length: expected 1 to"),
        (format!("{s4d}/kernel_length"), json!(-1), "diagonal \"s4d\": kernel_length: expected 1 to"),
        (format!("{s4d}/A"), json!({"real": "t5"}), "diagonal \"s4d\": A: expected a complex array"),
        (format!("{s4d}/D"), json!({"complex": "t3"}), "diagonal \"s4d\": D: expected a real array"),
        (format!("{s4d}/A"), json!({"complex": "elsewhere"}), "A: expected a tensor \"elsewhere\""),
        (format!("{s4d}/B"), json!({"complex": "t5"}), "B: expected a tensor \"t5\" that no other field uses"),
        (format!("{root}/2/child/children/1/gate"), json!("softmax"), "gate: expected one of \"identity\""),
        (format!("{root}/2/beta"), json!("x"), "residual at root.children.2: beta: expected a finite number"),
        (format!("{root}/3/Q"), json!(null), "expected every tensor to belong to a node, found \"t14\""),
        (format!("{root}/5/disc"), json!("zoh"), "diagonal_mimo \"lru\": dt: expected an array, found null"),
        (format!("{root}/5/disc"), json!("dss"), "diagonal_mimo \"lru\": disc: expected one that is a recurrence"),
        (format!("{root}/7/mode"), json!("max"), "pool \"pool\": mode: expected one of \"mean\""),
        (
            format!("{root}/9/size"),
            json!(2),
            "activation at root.children.9: expected an input whose width is a multiple of 2",
        ),
        (format!("{root}/9/function"), json!("mish"), "function: expected one of \"identity\""),
    ] {
        let mut draft = every_kind();
        set(&mut draft, &pointer, value);
        let message = draft.refusal();
        assert!(message.contains(words), "{pointer}: expected {words:?} in {message:?}");
    }
}

#[test]
fn a_wrong_tensor_is_named_with_what_was_expected() {
    let cases: [(&str, Vec<usize>, f64, &str); 12] = [
        ("t1", vec![5], 1.0, "norm \"norm\": expected an input of width 5, found 4"),
        ("t2", vec![2, 4, 2, 2], 1.0, "diagonal \"s4d\": dt: expected shape (H=4, N=2), found [4, 3]"),
        ("t3", vec![2, 5], 1.0, "diagonal \"s4d\": D: expected shape (M=2, H=4), found [2, 5]"),
        ("t4", vec![4], 0.0, "diagonal \"s4d\": dt: expected positive numbers, found 0 at flat index 0"),
        ("t4", vec![4], -0.1, "diagonal \"s4d\": dt: expected positive numbers, found -0.1 at flat index 0"),
        ("t4", vec![4], f64::NAN, "diagonal \"s4d\": dt: expected finite numbers, found NaN at flat index 0"),
        ("t5", vec![2, 3, 2], f64::INFINITY, "diagonal \"s4d\": A: expected finite numbers, found inf"),
        ("t5", vec![3, 3, 2], 1.0, "diagonal \"s4d\": B: expected shape (S=3, N=3), found [2, 3]"),
        ("t5", vec![2, 3, 3], 1.0, "diagonal \"s4d\": A: expected a last axis of 2"),
        ("t7", vec![3], 1.0, "residual at root.children.2: beta: expected shape (4,), found (3,)"),
        ("t0", vec![0, 4], 1.0, "embedding \"emb\": weight: expected no empty axis, found [0, 4]"),
        ("t27", vec![4, 3], 1.0, "selective \"s6\": A: expected no positive number"),
    ];
    for (name, shape, value, words) in cases {
        let mut draft = every_kind();
        let tensor = draft.tensors.get_mut(name).unwrap();
        *tensor = (tensor.0, shape.clone(), vec![value; shape.iter().product()]);
        let message = draft.refusal();
        assert!(message.contains(words), "{name} {shape:?}: expected {words:?} in {message:?}");
    }

    let mut draft = every_kind();
    draft.real(&[1], 1.0);
    assert!(draft.refusal().contains("expected every tensor to belong to a node"));
}

#[test]
fn the_number_of_systems_divides_the_channels() {
    let mut draft = Draft::new(4, 4);
    let mut node = diagonal(&mut draft, 1, 4);
    node["A"] = draft.complex(&[3, 3], -0.5);
    node["B"] = draft.complex(&[3, 3], -0.5);
    draft.tensors.retain(|name, _| node.to_string().contains(&format!("{name}\"")));
    let message = draft.with_root(node).refusal();
    assert!(message.contains("expected a number of systems that divides the 4 channels, found 3"), "{message}");
}

#[test]
fn nodes_stand_only_where_they_may() {
    let sequential = |children: Value| json!({"node": "sequential", "name": "", "children": children});
    let pool = json!({"node": "pool", "name": "p", "mode": "last"});
    let identity = sequential(json!([]));
    assert!(Draft::new(4, 4).with_root(sequential(json!([pool, identity]))).parse().is_ok());

    let refused = |root: Value| Draft::new(4, 4).with_root(root).refusal();
    let message = refused(pool.clone());
    assert!(message.contains("pool \"p\": expected to stand in the outermost sequential"), "{message}");
    let message = refused(sequential(json!([sequential(json!([pool]))])));
    assert!(message.contains("expected to stand in the outermost sequential"), "{message}");
    let message = refused(sequential(json!([pool, {"node": "pool", "name": "q", "mode": "last"}])));
    assert!(message.contains("pool \"q\": expected nothing that runs along time behind a pool"), "{message}");

    let mut draft = Draft::new(1, 4);
    let embedding = json!({"node": "embedding", "name": "", "weight": draft.real(&[2, 4], 1.0)});
    let root = sequential(json!([sequential(json!([embedding]))]));
    assert!(draft.clone().with_root(root).parse().unwrap().tokens());
    let message = draft.with_root(sequential(json!([identity, embedding]))).refusal();
    assert!(message.contains("embedding at root.1: expected to be the first node"), "{message}");
}

#[test]
fn branches_give_equal_widths() {
    let mut draft = Draft::new(4, 2);
    let linear = json!({"node": "linear", "name": "", "weight": draft.real(&[2, 4], 1.0)});
    let residual = json!({"node": "residual", "name": "", "child": linear});
    let message = draft.clone().with_root(residual).refusal();
    assert!(message.contains("expected branches of equal width, found skip 4, child 2"), "{message}");
    let identity = json!({"node": "sequential", "name": "", "children": []});
    let message = draft.with_root(json!({"node": "gate", "name": "", "left": linear, "right": identity})).refusal();
    assert!(message.contains("expected branches of equal width, found left 2, right 4"), "{message}");
}

#[test]
fn deep_nesting_is_refused() {
    for (depth, fits) in [(50, true), (100, true), (101, false), (110, false), (100_000, false)] {
        let leaf = r#"{"node": "glu", "name": ""}"#;
        let text = r#"{"node": "residual", "child": "#.repeat(depth) + leaf + &"}".repeat(depth);
        let mut draft = Draft::new(4, 4);
        draft.tree["root"] = json!("HERE");
        let tree = draft.tree.to_string().replace("\"HERE\"", &text);
        let none: [(&str, TensorView<'_>); 0] = [];
        let buffer = safetensors::serialize(none, Some(HashMap::from([("ssmrt".to_string(), tree)]))).unwrap();
        let message = Document::parse(buffer).unwrap_err().to_string();
        assert_eq!(message.contains("equal width"), fits, "{depth}: {message}");
    }
}

#[test]
fn what_is_no_document_is_refused() {
    let none: [(&str, TensorView<'_>); 0] = [];
    let plain = safetensors::serialize(none, None).unwrap();
    let message = Document::parse(plain).unwrap_err().to_string();
    assert!(message.contains("found a safetensors buffer without its header"), "{message}");
    for buffer in [Vec::new(), b"PK\x03\x04".to_vec(), vec![0xff; 64], vec![0; 8]] {
        assert!(matches!(Document::parse(buffer), Err(Error::Document(_))));
    }
    let mut draft = every_kind();
    draft.tensors.get_mut("t1").unwrap().0 = Dtype::I64;
    let message = draft.refusal();
    assert!(message.contains("tensor \"t1\": expected dtype F32 or F64, found I64"), "{message}");
}

#[test]
fn a_truncated_buffer_is_refused() {
    let buffer = every_kind().bytes();
    for length in (0..buffer.len()).step_by(7) {
        assert!(matches!(Document::parse(buffer[..length].to_vec()), Err(Error::Document(_))), "{length}");
    }
}

proptest! {
    #[test]
    fn damaged_bytes_never_panic(at in any::<prop::sample::Index>(), to in any::<u8>(), count in 1usize..4) {
        let mut buffer = every_kind().bytes();
        let at = at.index(buffer.len());
        for byte in buffer.iter_mut().skip(at).step_by(11).take(count) {
            *byte = to;
        }
        // A damaged weight may still be a weight; what matters is that nothing but Ok and Error::Document comes.
        match Document::parse(buffer) {
            Ok(document) => drop(stability(&document)),
            Err(error) => prop_assert!(matches!(error, Error::Document(_))),
        }
    }
}

fn stability(document: &Document) -> Result<(), String> {
    Plan::<f64>::new(document, 1.0, Isa::Scalar, &Team::ALONE).map(drop).map_err(|error| error.to_string())
}

#[test]
fn an_unstable_diagonal_system_is_refused() {
    for (disc, expected) in [("zoh", false), ("bilinear", false), ("euler", false), ("dss", true)] {
        let mut draft = Draft::new(4, 4);
        let mut node = diagonal(&mut draft, 1, 4);
        node["disc"] = json!(disc);
        let a = draft.tensors.get_mut("t3").unwrap();
        a.2[10] = 0.01;
        let result = stability(&draft.clone().with_root(node.clone()).parse().unwrap());
        assert_eq!(result.is_ok(), expected, "{disc}: {result:?}");
        if let Err(message) = result {
            assert!(message.contains("diagonal \"s4d\": channel 3: expected every discrete eigenvalue"), "{message}");
        }
        node["allow_unstable"] = json!(true);
        stability(&draft.with_root(node).parse().unwrap()).unwrap();
    }
}

#[test]
fn an_unstable_mode_of_a_mimo_system_is_refused() {
    for (modulus, stable) in [(1.0, true), (1.0 + 1e-10, true), (1.0 + 1e-6, false)] {
        let mut draft = Draft::new(2, 2);
        let a = draft.complex(&[3], 0.1);
        draft.tensors.get_mut("t0").unwrap().2[4..].copy_from_slice(&[0.6 * modulus, 0.8 * modulus]);
        let node = json!({"node": "diagonal_mimo", "name": "lru", "A": a, "B": draft.complex(&[3, 2], 1.0),
                          "C": draft.complex(&[2, 3], 1.0), "dt": null, "disc": "discrete"});
        let result = stability(&draft.with_root(node).parse().unwrap());
        assert_eq!(result.is_ok(), stable, "{modulus}: {result:?}");
        assert!(stable || result.unwrap_err().contains("lru\": mode 2: "));
    }
}

#[test]
fn an_unstable_dense_system_is_refused() {
    // A rotation with growth `rate`, and dt 0.1.
    for (rate, alpha, stable) in
        [(-0.1, 0.5, true), (0.0, 0.5, true), (0.01, 0.5, false), (-0.1, 0.0, false), (0.01, 1.0, true)]
    {
        let mut draft = Draft::new(2, 2);
        let node = json!({"node": "dense", "name": "lssl", "A": draft.real(&[1, 2, 2], rate),
                          "B": draft.real(&[1, 2], 1.0), "C": draft.real(&[1, 2, 2], 1.0),
                          "D": draft.real(&[1, 2], 1.0), "dt": draft.real(&[2], 0.1), "alpha": alpha});
        draft.tensors.get_mut("t0").unwrap().2[1..3].copy_from_slice(&[-2.0, 2.0]);
        let result = stability(&draft.with_root(node).parse().unwrap());
        assert_eq!(result.is_ok(), stable, "{rate} {alpha}: {result:?}");
    }
}

#[test]
fn an_unstable_dplr_system_is_refused() {
    // The eigenvalue of [[a - p q]] with one real mode; its sign is the sign of a - p q.
    for (pairs, a, p, q, stable) in [
        (false, -1.0, 0.5, None, true),
        (false, 0.1, 1.0, None, true),
        (false, 0.1, 0.1, None, false),
        (false, -1.0, 1.0, Some(-1.1), false),
        (false, -1.0, 1.0, Some(-0.9), true),
        (true, -1.0, 1.0, Some(-0.6), false),
        (true, -1.0, 1.0, Some(-0.4), true),
    ] {
        let mut draft = Draft::new(1, 1);
        let q = q.map_or(Value::Null, |q| draft.complex(&[1, 1, 1], q));
        let node = json!({"node": "dplr", "name": "s4", "A": draft.complex(&[1, 1], a), "B": draft.complex(&[1, 1], 1.0),
                          "P": draft.complex(&[1, 1, 1], p), "Q": q, "C": draft.complex(&[1, 1, 1], 1.0),
                          "D": draft.real(&[1, 1], 1.0), "dt": draft.real(&[1], 0.1), "conjugate_pairs": pairs});
        for (_, shape, data) in draft.tensors.values_mut() {
            if shape.last() == Some(&2) {
                data[1] = 0.0;
            }
        }
        let result = stability(&draft.with_root(node).parse().unwrap());
        assert_eq!(result.is_ok(), stable, "{pairs} {a} {p}: {result:?}");
        assert!(stable || result.unwrap_err().contains("dplr \"s4\": channel 0: "));
    }
}
