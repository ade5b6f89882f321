#!/bin/sh
# A FlexVolume driver: binds the folder that the option `folder` names.
# Called as `folder init`, `folder mount DIR OPTIONS` and `folder unmount DIR`; answers in JSON.

success() { echo '{"status": "Success"}'; exit 0; }
failure() { echo "{\"status\": \"Failure\", \"message\": \"$1\"}"; exit 1; }

case $1 in
  init) echo '{"status": "Success", "capabilities": {"attach": false}}' ;;
  mount)
    folder=$(echo "$3" | sed -n 's/.*"folder":"\([^"]*\)".*/\1/p')
    [ -n "$folder" ] || failure 'the option folder is missing'
    mkdir -p "$folder" && mount --bind "$folder" "$2" >&2 || failure "cannot bind $folder"
    success
    ;;
  unmount)
    umount "$2" >&2 || failure "cannot unmount $2"
    success
    ;;
  *) echo '{"status": "Not supported"}'; exit 1 ;;
esac
