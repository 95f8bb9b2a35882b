"""Images and volumes: decoding, transforms and augmentation."""
