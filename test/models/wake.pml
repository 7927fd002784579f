/* Sleep and wake (channel/wake.h), on a machine with store buffers (TSO): a store is seen by others only when it leaves its buffer, a
   locked exchange and a fence empty the buffer first. One producer; WAITERS threads of one consumer process, which take turns under
   rx_lock; each thread sleeps in the kernel on {TCP socket, its own fast doorbell, its private wake fd}.
   A byte is its position, the ring holds positions, so a byte read too early, twice or in a wrong place is an error. */

#ifndef N
#define N 4                     /* bytes */
#endif
#ifndef WAITERS
#define WAITERS 2
#endif
#ifndef CAP
#define CAP 2                   /* ring bytes before and ... */
#endif
#ifndef CAP2
#define CAP2 4                  /* ... after growth */
#endif
#ifndef QUARTER
#define QUARTER 1               /* WritableRoom() */
#endif
#ifndef LEAVES
#define LEAVES 1                /* waits that end by themselves (timeout, signal) */
#endif

#define NOBODY  0               /* WakeTarget */
#define TCPBELL 1
#define FAST    2               /* + thread */

/* Words, as memory has them. */
byte tail, head, capacity = CAP, data_waiter, space_waiter;
byte ring[CAP2];

/* Store buffers: one for the producer, one for the consumer process (whoever holds rx_lock; unlock drains it). */
#define W_TAIL  0
#define W_CAP   1
#define W_HEAD  2
#define W_DATA  3
#define W_SPACE 4
#define W_RING  5               /* + index */
chan pbuf = [4] of { byte, byte };
chan cbuf = [3] of { byte, byte };
#ifdef BAD_NO_FENCE_PRODUCER
#define PFENCE skip
#else
#define PFENCE (len(pbuf) == 0)
#endif
#ifdef BAD_NO_FENCE_WAITER
#define CFENCE skip
#else
#define CFENCE (len(cbuf) == 0)
#endif
#define PLOCKED (len(pbuf) == 0)
#define CLOCKED (len(cbuf) == 0)

/* Kernel */
byte bells;                     /* BELL bytes in the consumer's socket */
byte pbells;                    /* and in the producer's */
bit fast[WAITERS], wake[WAITERS], pfast;
bit known;                      /* the agent has brought the fast doorbells to the other side */
#define SOCKBUF 2

/* Consumer process, private */
byte in_pos, sleepers, left, gone;
bit registered[WAITERS];
bit rx_lock;
byte out_pos;

inline Apply(w, x) {
  if
  :: w == W_TAIL -> tail = x
  :: w == W_CAP -> capacity = x
  :: w == W_HEAD -> head = x
  :: w == W_DATA -> data_waiter = x
  :: w == W_SPACE -> space_waiter = x
  :: w >= W_RING -> ring[w - W_RING] = x
  fi;
  w = 0; x = 0
}
proctype Memory() {             /* buffers drain at any time, in order */
  byte w, x;
end:
  do
  :: atomic { pbuf?w,x -> Apply(w, x) }
  :: atomic { cbuf?w,x -> Apply(w, x) }
  :: atomic { !known -> known = 1 }
  od
}

proctype Producer() {
  byte seen_head, cap = CAP, target, target2, fresh;
  do
  :: out_pos < N ->
       fresh = head;
       if :: fresh > seen_head -> seen_head = fresh :: else fi;
       fresh = 0;
       if                       /* AdjustCapacity: as large as it gets, when drained */
#ifdef BAD_GROW_NOT_EMPTY
       :: atomic { cap != CAP2 -> pbuf!W_CAP,CAP2; cap = CAP2 }
#else
       :: atomic { cap != CAP2 && seen_head == out_pos -> pbuf!W_CAP,CAP2; cap = CAP2 }
#ifdef SHRINKS
       :: atomic { cap != CAP && seen_head == out_pos -> pbuf!W_CAP,CAP; cap = CAP }
#endif
#endif
       :: true
       fi;
       if
       :: out_pos - seen_head < cap ->
#ifdef BAD_TAIL_BEFORE_BYTES
            atomic { pbuf!W_TAIL,out_pos + 1 }
            atomic { pbuf!W_RING + out_pos % cap,out_pos; out_pos++ };
#else
            atomic { pbuf!W_RING + out_pos % cap,out_pos; out_pos++ };
            pbuf!W_TAIL,out_pos;
#endif
            PFENCE;             /* TakeWaiter: B2 */
            target = data_waiter;
            if
            :: target != NOBODY ->
                 atomic { PLOCKED -> target = data_waiter; data_waiter = NOBODY };
                 atomic {
                   if
                   :: target >= FAST && known -> fast[target - FAST] = 1
                   :: target == NOBODY -> skip
                   :: else -> if :: bells < SOCKBUF -> bells++ :: else fi       /* EAGAIN */
                   fi;
                   target = 0 }
            :: else
            fi
       :: else ->               /* PrepareToSleep for room */
            atomic { if :: target2 = TCPBELL :: target2 = FAST fi; pbuf!W_SPACE,target2; target2 = 0 };
            PFENCE;
#ifndef BAD_NO_SPACE_RECHECK
            fresh = head;
#endif
            if
            :: cap - (out_pos - (fresh > seen_head -> fresh : seen_head)) >= QUARTER -> fresh = 0
            :: else ->
                 fresh = 0;
                 (pbells > 0 || pfast);
                 atomic { pfast = 0; pbells = 0 }
            fi;
            pbuf!W_SPACE,NOBODY
       fi
  :: out_pos == N -> break
  od
}

#ifdef BAD_DISARM_BY_ANY
#define LAST_SLEEPER true
#else
#define LAST_SLEEPER (sleepers == 0)
#endif
inline Unlock() { atomic { CLOCKED -> rx_lock = 0 } }

proctype Waiter(byte me) {
  byte target, room, cap, seen_tail;
  do
  :: atomic { !rx_lock -> rx_lock = 1 };
     if
     :: in_pos == N -> Unlock(); break
     :: else
     fi;
     /* TryReceive */
#ifdef BAD_CAPACITY_BEFORE_TAIL
     cap = capacity;
     seen_tail = tail;
#else
     seen_tail = tail;
     cap = capacity;
#endif
     if
     :: seen_tail > in_pos ->
          atomic { assert(ring[in_pos % cap] == in_pos); in_pos++ };
progress:
          cbuf!W_HEAD,in_pos;
          room = cap - (seen_tail - in_pos);
          if
#ifdef BAD_THRESHOLDS
          :: room > QUARTER ->
#else
          :: room >= QUARTER ->
#endif
               CFENCE;
               target = space_waiter;
               if
               :: target != NOBODY ->
                    atomic { CLOCKED -> target = space_waiter; space_waiter = NOBODY };
                    atomic {
                      if
                      :: target == FAST && known -> pfast = 1
                      :: target == NOBODY -> skip
                      :: else -> if :: pbells < SOCKBUF -> pbells++ :: else fi
                      fi;
                      target = 0 }
               :: else
               fi
          :: else
          fi;
          room = 0; cap = 0; seen_tail = 0;
          Unlock();
          if                    /* the thread turns to something else for ever; one stays */
          :: atomic { gone < WAITERS - 1 -> gone++ } break
          :: true
          fi
     :: else ->
          cap = 0;
          /* TakeFrames */
          atomic { if :: bells > 0 -> bells = 0;
#ifndef BAD_NO_PASSING_ON
                      room = 0; do :: room < WAITERS -> wake[room] = registered[room]; room++ :: else -> break od; room = 0
#endif
                   :: else fi };
          /* PrepareToSleep */
          atomic { registered[me] = 1;
            if :: sleepers > 0 -> target = TCPBELL :: else -> if :: target = TCPBELL :: target = FAST + me fi fi;
            sleepers++;
            cbuf!W_DATA,target; target = 0 };
          CFENCE;
#ifndef BAD_NO_DATA_RECHECK
          seen_tail = tail;
#endif
          if
          :: seen_tail > in_pos -> seen_tail = 0; Unlock()
          :: else ->
               seen_tail = 0;
               Unlock();
               if
               :: bells > 0 || fast[me] || wake[me] || in_pos == N -> skip        /* at the end the FIN is readable for all */
               :: atomic { left < LEAVES -> left++ }
               fi
          fi;
          /* AfterSleep */
#ifndef BAD_DISARM_UNLOCKED
          atomic { !rx_lock -> rx_lock = 1 };
#endif
          sleepers--;
          if
          :: LAST_SLEEPER -> cbuf!W_DATA,NOBODY
          :: else
          fi;
#ifndef BAD_DISARM_UNLOCKED
          Unlock();
#endif
          atomic { registered[me] = 0; wake[me] = 0; fast[me] = 0 }
     fi
  od
}

init { atomic { byte i = 0;
  run Memory(); run Producer();
  do :: i < WAITERS -> run Waiter(i); i++ :: else -> break od } }
