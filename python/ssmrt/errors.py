"""The exceptions of ssmrt. Wrong shapes and dtypes of arrays are ``ValueError`` and ``TypeError``."""


class SsmrtError(Exception):
    """Above every exception that is ssmrt's own."""


class CheckpointError(SsmrtError):
    """A file that is no checkpoint, is damaged or hostile, or whose tensors do not fit together."""


class ConfigRequired(SsmrtError):
    """A fact that changes the result is not in the file and was not given in ``config``.

    ``name`` is the constructor argument's name, ``choices`` what it may be (None: any number),
    ``default`` what upstream's constructor takes when nothing is said.
    """

    def __init__(self, name: str, *, why: str, choices: tuple[object, ...] | None = None, default: object = None):
        self.name = name
        self.choices = choices
        self.default = default
        one_of = "" if choices is None else f" one of {', '.join(map(repr, choices))};"
        super().__init__(
            f"config[{name!r}] is needed: {why};{one_of} upstream's default is {default!r}."
            f" Pass config={{{name!r}: ...}}, or config={{}} for upstream's defaults throughout"
        )


class UnsupportedError(SsmrtError):
    """The model is understood, but holds something that ssmrt does not run."""


class NotStreamable(SsmrtError):
    """The model is not causal: some layer needs the whole sequence."""


class ExportError(SsmrtError):
    """The model cannot be exported as asked; nothing was written."""
