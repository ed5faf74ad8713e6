"""Sounds, read block by block: wav with nothing but NumPy, other files by soundfile."""

from .encodings import ENCODINGS as ENCODINGS
from .encodings import scaled as scaled
from .sound import Pcm as Pcm
from .sound import Read as Read
from .sound import Recording as Recording
from .sound import Sound as Sound
from .sound import blocks as blocks
from .sound import open_sound as open_sound
from .sound import read as read
from .sound import stream as stream
