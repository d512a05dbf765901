#!/bin/sh
# The disk from kernel and root, by the same script that makes it from Debian's parts.
set -eu
image=$(cd "$(dirname "$0")/../../../appliance-image" && pwd)
# GRUB's modules lie where they were built, one folder for each kind of firmware.
grub=$BUILD_DIR/cardshop-grub
mkdir -p "$grub"
for kind in i386-pc x86_64-efi; do
    ln -sfn "$(ls -d "$BUILD_DIR"/grub2-*/build-"$kind"/grub-core)" "$grub/$kind"
done
PATH="$HOST_DIR/bin:$HOST_DIR/sbin:$PATH" SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(date +%s)} \
    "$image/make-disk" --kernel "$BINARIES_DIR/bzImage" --initramfs "$BINARIES_DIR/rootfs.cpio.zst" \
    --grub "$grub" --origin "Buildroot $BR2_VERSION" -o "$BINARIES_DIR/appliance.img"
