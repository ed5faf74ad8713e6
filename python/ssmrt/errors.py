"""The exceptions of ssmrt. Wrong shapes and dtypes of arrays are ``ValueError`` and ``TypeError``."""


class SsmrtError(Exception):
    """Above every exception that is ssmrt's own."""


class CheckpointError(SsmrtError):
    """A file that is no checkpoint, is damaged or hostile, or whose tensors do not fit together."""


_NONE = object()


class ConfigRequired(SsmrtError):
    """A fact that changes the result is not in the file and was not given in ``config``.

    ``name`` is the constructor argument's name, ``choices`` what it may be (None: any number),
    ``default`` what upstream's constructor takes when nothing is said; left out where
    it has none, and the fact must be told. ``why`` says what the fact changes, ``path`` are the names of the
    mappings in ``config`` around it.
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
    """The model is understood, but holds something that ssmrt does not run."""


class NotStreamable(SsmrtError):
    """The model is not causal: some layer needs the whole sequence."""


class ExportError(SsmrtError):
    """The model cannot be exported as asked; nothing was written."""


class AudioError(SsmrtError):
    """A sound file that is damaged, or holds no PCM samples."""
