# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash
#
# Completion of haku-shell for bash: source this file in ~/.bashrc.

_haku_shell() {
  local line=${COMP_LINE:0:COMP_POINT} previous=${COMP_WORDS[COMP_CWORD - 1]} options=() i
  local word=${line##*[[:space:]]}

  case $previous in
    -i | --inventory | --vault-password-file)
      compopt -o filenames
      mapfile -t COMPREPLY < <(compgen -f -- "$word")
      return
      ;;
  esac
  if [[ $word == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W '--ask-vault-password --help --inventory --start --vault-id --vault-password-file' -- "$word")
    return
  fi

  for ((i = 1; i < COMP_CWORD - 1; i++)); do
    case ${COMP_WORDS[i]} in
      -i | --inventory | --vault-id | --vault-password-file)
        options+=("${COMP_WORDS[i]}" "${COMP_WORDS[i + 1]/#\~/$HOME}")
        ;;
    esac
  done
  mapfile -t COMPREPLY < <("${COMP_WORDS[0]}" --complete "${options[@]}" -- "$word" 2>/dev/null)
  [[ ${COMPREPLY[*]} != *: ]] || compopt -o nospace
  # Where bash parts words at colons, it replaces only what stands behind the last one.
  [[ $COMP_WORDBREAKS != *:* || $word != *:* ]] || COMPREPLY=("${COMPREPLY[@]#"${word%:*}:"}")
}

complete -F _haku_shell haku-shell
