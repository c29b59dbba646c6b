/* version.h - version of the programs; the disk format has its own number */
#ifndef COWFS_VERSION_H
#define COWFS_VERSION_H

#ifdef COWFS_NOVERIFY
#define COWFS_VERSION "0.1.0, without checksums: not for data"
#else
#define COWFS_VERSION "0.1.0"
#endif

#endif
