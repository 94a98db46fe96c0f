# shellcheck shell=bash
# A Ceph cluster for tests: one monitor and one OSD (BlueStore) on loopback, with cephx, all files in one directory. Without a manager,
# as nothing but quotas needs figures collected; one can be started for those. Needs: say.sh.
#
#   DIR/ceph.conf            for daemons and clients; finds the keys of these users as DIR/NAME.keyring:
#     client.admin           everything
#     client.archvhost       what docs/operations.md tells to give: the least with which archvhost works
#     client.other           the same for a second host
#     client.unfencing       the same without the right to blocklist
#     client.stranger        may look at the cluster, and at no pool
#   pools: archvhost (metadata and data), archvhost-data (for a data pool of its own). Users may also use these, which tests make that need
#   them: archvhost-coded (erasure-coded), archvhost-limited (with a quota)

CEPH_DIR=''
CEPH_MON_PID='' CEPH_OSD_PID='' CEPH_MGR_PID=''

# OSDs refuse to be told to use less.
CEPH_OSD_MEMORY=939524096

CEPH_POOLS=(archvhost archvhost-data)
CEPH_POOLS_OF_TESTS=(archvhost-coded archvhost-limited)

# start_ceph DIR: returns when the pools take writes. Whatever DIR was before is gone.
start_ceph() {
  CEPH_DIR=$1
  rm -rf "$CEPH_DIR"
  mkdir -p "$CEPH_DIR/mon" "$CEPH_DIR/osd"
  CEPH_DIR=$(cd "$CEPH_DIR" && pwd)
  write_ceph_conf "$(cat /proc/sys/kernel/random/uuid)" "$(free_ceph_port)"
  make_ceph_keys
  start_ceph_mon
  start_ceph_osd
  make_ceph_pools
}

stop_ceph() {
  local pid
  # A disk that is thrown away needs no orderly end.
  for pid in $CEPH_MGR_PID $CEPH_OSD_PID $CEPH_MON_PID; do kill -KILL "$pid" 2>/dev/null || :; done
  for pid in $CEPH_MGR_PID $CEPH_OSD_PID $CEPH_MON_PID; do wait "$pid" 2>/dev/null || :; done
  CEPH_MGR_PID='' CEPH_OSD_PID='' CEPH_MON_PID=''
  [ -z "$CEPH_DIR" ] || rm -rf "$CEPH_DIR"
}

# Prints a port of loopback on which nobody listens. Below those that the kernel gives to clients.
free_ceph_port() {
  local port attempt
  for attempt in {1..50}; do
    port=$((13400 + RANDOM % 8000))
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
  done
  fail "no free port after $attempt attempts"
}

# write_ceph_conf FSID PORT. Secrets are checked everywhere, as on a real cluster.
write_ceph_conf() {
  cat >"$CEPH_DIR/ceph.conf" <<CONF
[global]
fsid = $1
mon_host = [v2:127.0.0.1:$2/0]
ms_bind_msgr1 = false
ms_bind_ipv6 = false
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
auth_cluster_required = cephx
auth_service_required = cephx
auth_client_required = cephx
keyring = $CEPH_DIR/\$name.keyring
admin_socket =
log_file =
run_dir = $CEPH_DIR
crash_dir = $CEPH_DIR
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 8
osd_crush_chooseleaf_type = 0

[mon]
log_file = $CEPH_DIR/mon.log
mon_data = $CEPH_DIR/mon
mon_cluster_log_to_file = false
mon_allow_pool_size_one = true
mon_warn_on_pool_no_redundancy = false
mon_data_avail_warn = 2
mon_data_avail_crit = 1

[mgr]
log_file = $CEPH_DIR/mgr.log
mgr_data = $CEPH_DIR/mgr
mgr_initial_modules =
mgr_stats_period = 1

[osd]
log_file = $CEPH_DIR/osd.log
osd_data = $CEPH_DIR/osd
osd_objectstore = bluestore
osd_memory_target = $CEPH_OSD_MEMORY
bluestore_block_size = 10737418240
CONF
}

make_ceph_keys() {
  local pool osd=''
  for pool in "${CEPH_POOLS[@]}" "${CEPH_POOLS_OF_TESTS[@]}"; do osd+="${osd:+, }allow rwx pool=$pool"; done
  ceph_key mon. mon 'allow *'
  ceph_key osd.0 mon 'allow profile osd' osd 'allow *'
  ceph_key mgr.x mon 'allow profile mgr' osd 'allow *'
  ceph_key client.admin mon 'allow *' osd 'allow *' mgr 'allow *'
  ceph_key client.archvhost mon 'profile rbd' osd "$osd"
  ceph_key client.other mon 'profile rbd' osd "$osd"
  ceph_key client.unfencing mon 'allow r' osd "$osd"
  ceph_key client.stranger mon 'allow r'
  # What the monitor begins with.
  cat "$CEPH_DIR"/*.keyring >"$CEPH_DIR/keys"
}

# ceph_key NAME [DAEMON CAPABILITY]...
ceph_key() {
  local name=$1 capabilities=(); shift
  while [ $# -gt 0 ]; do capabilities+=(--cap "$1" "$2"); shift 2; done
  ceph-authtool --create-keyring "$CEPH_DIR/$name.keyring" --gen-key -n "$name" "${capabilities[@]}" >/dev/null
}

start_ceph_mon() {
  local fsid address
  fsid=$(sed -n 's/^fsid = //p' "$CEPH_DIR/ceph.conf")
  address=$(sed -n 's/^mon_host = \[\(.*\)\/0\]$/[\1]/p' "$CEPH_DIR/ceph.conf")
  monmaptool --create --fsid "$fsid" --addv a "$address" --set-min-mon-release pacific "$CEPH_DIR/monmap" >/dev/null
  ceph-mon -c "$CEPH_DIR/ceph.conf" -i a --mkfs --monmap "$CEPH_DIR/monmap" --keyring "$CEPH_DIR/keys"
  run_ceph_mon
}

run_ceph_mon() {
  setpriv --pdeathsig=KILL ceph-mon -c "$CEPH_DIR/ceph.conf" -i a --keyring "$CEPH_DIR/mon..keyring" -f >>"$CEPH_DIR/mon.out" 2>&1 </dev/null &
  CEPH_MON_PID=$!
}

start_ceph_osd() {
  local id; id=$(cat /proc/sys/kernel/random/uuid)
  ceph_admin osd new "$id" 0 >/dev/null
  ceph-osd -c "$CEPH_DIR/ceph.conf" -i 0 --mkfs --osd-uuid "$id" >"$CEPH_DIR/osd.out" 2>&1
  run_ceph_osd
}

run_ceph_osd() {
  setpriv --pdeathsig=KILL ceph-osd -c "$CEPH_DIR/ceph.conf" -i 0 -f >>"$CEPH_DIR/osd.out" 2>&1 </dev/null &
  CEPH_OSD_PID=$!
}

kill_ceph_osd() { kill_ceph_daemon "$CEPH_OSD_PID"; }
kill_ceph_mon() { kill_ceph_daemon "$CEPH_MON_PID"; }
kill_ceph_mgr() { kill_ceph_daemon "$CEPH_MGR_PID"; }

kill_ceph_daemon() {
  kill -KILL "$1"
  # The shell would tell that it was killed.
  wait "$1" 2>/dev/null || :
}

run_ceph_mgr() {
  mkdir -p "$CEPH_DIR/mgr"
  setpriv --pdeathsig=KILL ceph-mgr -c "$CEPH_DIR/ceph.conf" -i x --keyring "$CEPH_DIR/mgr.x.keyring" -f >>"$CEPH_DIR/mgr.out" 2>&1 </dev/null &
  CEPH_MGR_PID=$!
}

# A write waits until its placement group is there.
make_ceph_pools() {
  local pool
  for pool in "${CEPH_POOLS[@]}"; do
    ceph_admin osd pool create "$pool" 8 8 2>/dev/null
    echo ready | timeout 60 rados -c "$CEPH_DIR/ceph.conf" -p "$pool" put ready - || fail "pool $pool takes no writes"
    rados -c "$CEPH_DIR/ceph.conf" -p "$pool" rm ready
  done
}

ceph_admin() { timeout 60 ceph -c "$CEPH_DIR/ceph.conf" "$@"; }
