"""The exceptions of ssmrt. Wrong shapes and dtypes of arrays are ``ValueError`` and ``TypeError``."""


class SsmrtError(Exception):
    """Above every exception that is ssmrt's own.

    >>> try:
    ...     ssmrt.load("missing.pth")
    ... except ssmrt.SsmrtError as error:
    ...     print(error)
    missing.pth: cannot be read: No such file or directory
    """


class CheckpointError(SsmrtError):
    """A file that is no checkpoint, is damaged or hostile, or whose tensors do not fit together.

    >>> ssmrt.Model.parse(b"anything")
    Traceback (most recent call last):
    ssmrt.errors.CheckpointError: expected a safetensors buffer, found: header too large
    """


_NONE = object()


class ConfigRequired(SsmrtError):
    """A fact that changes the result is not in the file and was not given in ``config``.

    ``name`` is the constructor argument's name, ``choices`` what it may be (None: any number),
    ``default`` what upstream's constructor takes when nothing is said; left out where
    it has none, and the fact must be told. ``why`` says what the fact changes, ``path`` are the names of the
    mappings in ``config`` around it.

    >>> try:
    ...     ssmrt.load("model.pth")
    ... except ssmrt.ConfigRequired as fact:
    ...     print(fact.name, fact.choices, fact.default)
    prenorm (False, True) False
    >>> model = ssmrt.load("model.pth", config={"prenorm": False})
    """

    def __init__(
        self,
        name: str,
        *,
        why: str,
        choices: tuple[object, ...] | None = None,
        default: object = _NONE,
        path: tuple[str, ...] = (),
    ):
        self.name = name
        self.why = why
        self.path = path
        self.choices = choices
        self.default = None if default is _NONE else default
        one_of = "" if choices is None else f" one of {', '.join(map(repr, choices))};"
        upstreams, otherwise = f"upstream's default is {default!r}", ", or config={} for upstream's defaults throughout"
        if default is _NONE:
            upstreams, otherwise = "upstream has no default", ""
        place = "".join(f"[{part!r}]" for part in (*path, name))
        example = "{" + f"{name!r}: ..." + "}"
        for part in reversed(path):
            example = "{" + f"{part!r}: {example}" + "}"
        super().__init__(f"config{place} is needed: {why};{one_of} {upstreams}. Pass config={example}{otherwise}")


class UnsupportedError(SsmrtError):
    """The model is understood, but holds something that ssmrt does not run.

    >>> discrete = ssmrt.diagonal([[0.5]], [[1]], [[1]], None, None, disc="discrete")
    >>> discrete.stream(rate=2.0)
    Traceback (most recent call last):
    ssmrt.errors.UnsupportedError: rate=2: layer diagonal "diagonal" has no step size that a rate could multiply; its
    recurrence was trained in discrete time
    """


class NotStreamable(SsmrtError):
    """The model is not causal: some layer needs the whole sequence.

    >>> from dataclasses import replace
    >>> layer = ssmrt.nn.diagonal([[-0.5]], [[1]], [[1]], None, 0.1)
    >>> ssmrt.nn.model(replace(layer, C_reverse=layer.C)).stream()
    Traceback (most recent call last):
    ssmrt.errors.NotStreamable: layer diagonal is bidirectional: the model answers whole sequences only; call it on one
    """


class ExportError(SsmrtError):
    """The model cannot be exported as asked; nothing was written.

    >>> ssmrt.export_onnx(model, "model.onnx", opset=12)
    Traceback (most recent call last):
    ssmrt.errors.ExportError: opset: expected 13 to 20, found 12
    """


class AudioError(SsmrtError):
    """A sound file that is damaged, or holds no PCM samples.

    >>> from pathlib import Path
    >>> from ssmrt import audio
    >>> bytes_written = Path("cut.wav").write_bytes(b"RIFF....WAVE")
    >>> audio.read("cut.wav")
    Traceback (most recent call last):
    ssmrt.errors.AudioError: cut.wav: truncated: expected a chunk b'data' with samples, found none
    """
