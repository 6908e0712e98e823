// Package shadow keeps two volumes side by side: the source in the old format and its shadow
// in the new one. It follows the changes of the one that is the truth and repeats them
// on the other, and it fences, swaps and releases the mounts.
//
// It does not know a format's layout (formats does), how an object is read or dressed
// (copier does), or when anything is to be done (migrate does).
//
// # Identity
//
// An object is a Node: inode number and generation, from the kernel's file handle
// (HandleCodec), never a path. A number that is used again within a second is another Node. On ext a
// handle with generation 0 opens whatever has the number; Open looks twice there.
//
// # What is dirty
//
// The Watch hears of changes through fanotify, after the fact; MarkFrom turns events
// into marks, never into actions: merged events, lost order and repeats are
// harmless because a pass reads the truth anew (I4). Behind the fence Barrier drains
// what is queued (I2). A lost event is an Overflow event, which means a scan of all inodes.
//
// The Journal is the set of dirty units, in memory. It need not be durable for its own sake: what
// happened while nobody listened (a crash, a reboot) is in no journal, so every start
// compares each inode in use with its Print, the fingerprint of the state that was last
// copied. Two things that scan cannot find, and they are what is durable:
//
//   - The other side was touched, and then the power went. The source may have lost its unsynced
//     last changes (with them the ctime that would show it), while the shadow kept the copy of
//     them: it has a future that the source never had, and the scan finds the source's inode
//     as it was copied before. So Begin writes a durable mark before the other side is touched, and the unit
//     is copied again.
//   - The copy was made, its record reached the store, and then the power went before the shadow's
//     data reached its disk: the Print is right, and the content is not there. So a record carries
//     the epoch it was made in, and Commit, called after read → source synced → shadow
//     synced, says which epoch is durable and deletes the marks of what is still clean, with one sync (I3).
//     When the boot id is another one than at that commit, Recover distrusts every
//     record of a later epoch. A kill without a power cut loses neither side's page
//     cache, and nothing is copied again.
//
// And one that not even a mark would have shown: a store of the application whose data
// writeback brought to the source's disk, before the log with its ctime got there. After the cut the inode is
// as it was copied, and the content is not. So with another boot id every file is Doubted: its
// content on the source is read again before it counts as verified, and copied only where it differs.
//
// Past its limit, over quota, or when events were lost the journal becomes coarse: marks whose
// reason the scan would find are dropped and the scan is asked for (NeedRescan). Marks that
// it would not find are Firm and stay: differences that verification found, objects that
// were touched on the other side only.
//
// # What was copied
//
// The NodeMap says for every object where it stands on the other side and in which state
// it was copied. It lives in a Pebble store with the journal; its keys are at Store, its
// values at Record. In memory are Prints (8.5 bytes an inode) and one bit an inode.
//
// A write or sync of the store that fails is never retried into success (I6): from then on every
// call is ErrStore, the migration stops resumably, and the application does not notice (I9).
package shadow
