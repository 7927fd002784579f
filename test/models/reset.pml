/* A process that dies beside an unread frame resets its connection, and what its kernel has not delivered by then is lost. So whoever sends
   payload by TCP (V, which may be killed at any moment) has no frame of the other end (S) unread meanwhile: V tells what it is about to
   send, then looks for frames; S tells that a frame is coming, then looks whether payload is on its way. Stores of V wait in a buffer
   until a fence or the machine empties it (TSO); what S tells by is changed by compare-and-swap, which waits for nothing.

   SWITCHES: frames that S may put off (the way back to TCP). BELLS: frames that tell V of room, which it needs only while it is on its
   ring; it leaves that once, before its first payload by TCP. */

#ifndef N
#define N 3                     /* bytes of payload */
#endif
#ifndef FRAMES
#define FRAMES 3
#endif

byte offered, buffered;         /* the word, and V's store that is not in memory yet (0: none) */
byte sent, delivered;           /* by V's kernel */
byte announced;                 /* S: frames that are on their way, or about to be: the gate's kSwitching, or bells - bells_seen */
byte unread;                    /* frames in V's queue */
bit off_ring;                   /* V has left its ring (the gate) */

inline Empty() { if :: buffered > 0 -> offered = buffered; buffered = 0 :: else fi }

active proctype Machine() {
end:
  do
  :: atomic { buffered > 0 -> Empty() }
  :: atomic { delivered < sent -> delivered++ }
  od
}

active proctype V() {
  byte n;
#ifdef BELLS
  off_ring = 1;                 /* Leave: compare-and-swap */
#endif
  do
  :: n < N ->
       atomic { Empty(); buffered = n + 1 }
#ifndef BAD_NO_FENCE_VICTIM
       atomic { Empty() }
#endif
#ifndef BAD_NO_LOOK
       do
       :: atomic { unread > 0 -> unread--; announced-- }
       :: announced > 0 && unread == 0 -> (unread > 0 || announced == 0)
       :: else -> break
       od;
#endif
       sent = n + 1;
       n++
  :: n < N -> (unread == 0 || unread > 0)   /* does something else */
  :: n == N -> break
  od
}

active proctype S() {
  byte frames;
  do
  :: frames < FRAMES ->
       frames++;
#ifdef BAD_LOOK_FIRST
       if
       :: offered > delivered -> skip
       :: else -> atomic { announced++ }; unread++
       fi
#else
       atomic { announced++ };
       if
#ifdef BELLS
#ifdef BAD_BELL_REGARDLESS
       :: unread++
#else
       :: off_ring -> atomic { announced-- }
       :: else -> unread++
#endif
#else
       :: offered > delivered -> atomic { announced-- }
       :: else -> unread++
#endif
       fi
#endif
  :: frames == FRAMES -> break
  od
}

/* A kill at any moment. */
active proctype Killer() {
  assert(!(unread > 0 && sent > delivered))
}
