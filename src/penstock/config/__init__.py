"""One frozen tree with every default and every cross-check; a file a section.

What the machine decides does not come back here: the engine puts it into its own `ModelInfo`.
`None` therefore stands for "automatic". Where values come from is the affair of `settings`.
"""

from __future__ import annotations

from penstock.config.engine import EngineConfig
from penstock.config.log import LogConfig
from penstock.config.model import ModelConfig
from penstock.config.server import ServerConfig
from penstock.config.tree import Config

__all__ = ["Config", "EngineConfig", "LogConfig", "ModelConfig", "ServerConfig"]
