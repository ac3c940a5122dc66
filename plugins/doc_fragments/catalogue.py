# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """Where the tarballs are."""

    DOCUMENTATION = r"""
options:
  shared_dir:
    description:
      - The directory that Host and Runners share, at the same path on all of them, for example an NFS mount.
    type: path
    required: true
  container_dir:
    description:
      - The directory of the tarballs, below O(shared_dir). It has to exist, so that an unmounted O(shared_dir) is
        noticed and not filled.
    type: str
    default: hakuriver-containers
"""

    IMAGE = r"""
options:
  image_prefix:
    description:
      - What the image's name begins with. The default is HakuRiver's own.
    type: str
    default: hakuriver
  image_tag:
    description:
      - The tag of the current image.
    type: str
    default: base
"""
