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

    WEB = r"""
options:
  source:
    description:
      - The address of the directory of tarballs on a web server or object store, for machines that do not have it
        mounted, for example V(https://storage.example.org/hakuriver-containers/).
      - The server has to answer Range requests, as nginx, Apache, Caddy and object stores do. What there is, it tells
        by C(catalogue.json), which M(haku.river.haku_tar) keeps in the directory, or else by an index of the directory.
      - With V(http://) there is a warning, as nothing proves that what comes is what was packaged.
      - The environment's proxy settings are used (E(https_proxy), E(no_proxy)).
    type: str
  source_ca_path:
    description:
      - File with the certificate authorities that the web server's certificate is verified against, instead of those
        of this machine.
    type: path
  source_validate_certs:
    description:
      - Verify the web server's certificate.
    type: bool
    default: true
  source_username:
    description:
      - The user name for the web server.
    type: str
  source_password:
    description:
      - The password for the web server. It is never shown.
    type: str
  source_headers:
    description:
      - Headers of every request, for example C(Authorization). They are never shown, and not sent to another server
        that a redirect leads to.
    type: dict
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
