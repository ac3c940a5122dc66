# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a module asks for the engine: the options, apart from `connect`, which plain Python can use without Ansible."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.basic import env_fallback

ENGINE_OPTIONS: dict[str, dict[str, Any]] = {
    # DOCKER_HOST is for `connect` to look at: to Podman it counts less than CONTAINER_HOST.
    "docker_host": {"type": "str", "aliases": ["docker_url"]},
    "tls": {"type": "bool", "default": False, "fallback": (env_fallback, ["DOCKER_TLS"])},
    "validate_certs": {
        "type": "bool",
        "default": False,
        "fallback": (env_fallback, ["DOCKER_TLS_VERIFY"]),
        "aliases": ["tls_verify"],
    },
    "tls_hostname": {"type": "str", "fallback": (env_fallback, ["DOCKER_TLS_HOSTNAME"])},
    "ca_path": {"type": "path", "aliases": ["ca_cert", "tls_ca_cert", "cacert_path"]},
    "client_cert": {"type": "path", "aliases": ["tls_client_cert", "cert_path"]},
    "client_key": {"type": "path", "aliases": ["tls_client_key", "key_path"]},
    "api_version": {
        "type": "str",
        "default": "auto",
        "fallback": (env_fallback, ["DOCKER_API_VERSION"]),
        "aliases": ["docker_api_version"],
    },
    "timeout": {"type": "int", "default": 60, "fallback": (env_fallback, ["DOCKER_TIMEOUT"])},
}
"""The argument specification of the doc fragment `haku.river.engine`."""

ENGINE_REQUIRED_TOGETHER = [("client_cert", "client_key")]
