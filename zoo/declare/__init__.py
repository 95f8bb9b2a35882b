"""Declarations of a plugin: plain data, without live objects and torch.

A declaration can be listed, printed, compared and tested without importing any model library. Functions are named as
``"module:function"`` and imported when they are called.
"""

from zoo.declare.backbone import POOLS as POOLS
from zoo.declare.backbone import BackboneSpec as BackboneSpec
from zoo.declare.backbone import Features as Features
from zoo.declare.backbone import HeadSpec as HeadSpec
from zoo.declare.backbone import Layers as Layers
from zoo.declare.backbone import Layout as Layout
from zoo.declare.backbone import Pair as Pair
from zoo.declare.backbone import Pool as Pool
from zoo.declare.backbone import from_fields as from_fields
from zoo.declare.inputs import INTERPOLATIONS as INTERPOLATIONS
from zoo.declare.inputs import MAX_CHANNELS as MAX_CHANNELS
from zoo.declare.inputs import MAX_PIXELS as MAX_PIXELS
from zoo.declare.inputs import OVERFLOWS as OVERFLOWS
from zoo.declare.inputs import Image as Image
from zoo.declare.inputs import Inputs as Inputs
from zoo.declare.inputs import Text as Text
from zoo.declare.inputs import Volume as Volume
from zoo.declare.origin import Origin as Origin
from zoo.declare.weights import PERMISSIVE as PERMISSIVE
from zoo.declare.weights import WEIGHT_FILES as WEIGHT_FILES
from zoo.declare.weights import Weights as Weights
