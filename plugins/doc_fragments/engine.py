# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """How a module reaches the container engine."""

    DOCUMENTATION = r"""
options:
  docker_host:
    description:
      - The engine's address, for example V(unix:///var/run/docker.sock) or V(tcp://192.0.2.23:2376).
      - What is named here is the only engine tried. If the option is not set, the environment variable
        E(DOCKER_HOST) names it.
      - If neither names one, these are tried in turn, and the first that answers is used.
        C(unix:///var/run/docker.sock), C(tcp://localhost:2376) with TLS and a verified certificate,
        C(tcp://localhost:2375) with a warning, unless TLS is asked for, the rootless socket under
        E(XDG_RUNTIME_DIR), the current Docker context.
      - A V(tcp://) address of another machine is spoken to without TLS only with a warning.
    type: str
    aliases:
      - docker_url
  tls:
    description:
      - Use TLS for a V(tcp://) engine without verifying its certificate. O(validate_certs=true) takes precedence.
      - If the option is not set, the environment variable E(DOCKER_TLS) is used.
    type: bool
    default: false
  validate_certs:
    description:
      - Use TLS for a V(tcp://) engine and verify its certificate.
      - If the option is not set, the environment variable E(DOCKER_TLS_VERIFY) is used.
    type: bool
    default: false
    aliases:
      - tls_verify
  tls_hostname:
    description:
      - The name that the engine's certificate must bear, where it is not that of the address.
      - The Docker SDK for Python supports this up to version 6. With a newer one it is refused; where O(docker_host) is
        not set, the place that needs it is passed over.
      - If the option is not set, the environment variable E(DOCKER_TLS_HOSTNAME) is used.
    type: str
  ca_path:
    description:
      - File with the certificate authority that the engine's certificate is verified against.
      - If the option is not set, C(ca.pem) in the directory that E(DOCKER_CERT_PATH) names is used, if it is there.
    type: path
    aliases:
      - ca_cert
      - tls_ca_cert
      - cacert_path
  client_cert:
    description:
      - File with the client's TLS certificate.
      - If the option is not set, C(cert.pem) in the directory that E(DOCKER_CERT_PATH) names is used, if it is there.
    type: path
    aliases:
      - tls_client_cert
      - cert_path
  client_key:
    description:
      - File with the key of the client's TLS certificate.
      - If the option is not set, C(key.pem) in the directory that E(DOCKER_CERT_PATH) names is used, if it is there.
    type: path
    aliases:
      - tls_client_key
      - key_path
  api_version:
    description:
      - The version of the Docker API to speak; V(auto) takes the newest that both sides know.
      - If the option is not set, the environment variable E(DOCKER_API_VERSION) is used.
    type: str
    default: auto
    aliases:
      - docker_api_version
  timeout:
    description:
      - How long to wait for an answer of the engine, in seconds. Commits, saves, loads and pulls may take longer.
      - If the option is not set, the environment variable E(DOCKER_TIMEOUT) is used.
    type: int
    default: 60
requirements:
  - Docker SDK for Python 5.0 or newer on the managed machine (C(python3-docker) or C(pip install docker));
    with requests 2.29 or newer, SDK 6.1 or newer
  - Docker 20.10 or newer on the managed machine, with either image store, or Podman's Docker-compatible service
"""

    KIND = r"""
options:
  engine:
    description:
      - What kind of engine runs the instances. It decides where one is looked for if O(docker_host) does not name it.
      - With V(podman), that is what the environment variable E(CONTAINER_HOST) names, or else what E(DOCKER_HOST)
        names, or else the service of root (C(/run/podman/podman.sock)) and that of the user (C(podman/podman.sock)
        under E(XDG_RUNTIME_DIR)). Docker is refused at any of them, and at what O(docker_host) names.
    type: str
    choices: [docker, podman]
    default: docker
"""
