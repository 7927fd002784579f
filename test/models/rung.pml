/* One ring for many words (channel/wake.h, A0 and B4, B5): CONNECTIONS words name the same wake object of one sleeper. Each connection has
   a maker, a thread of one process; makers are serialised from the look at `rung` on. The sleeper's stores go through a store buffer
   (TSO); what a maker does under a lock or by an exchange is seen at once. A ring may fail: then the maker rings by TCP, which wakes the
   sleeper as well. */

#ifndef CONNECTIONS
#define CONNECTIONS 2
#endif
#ifndef N
#define N 2                     /* bytes each */
#endif

byte tail[CONNECTIONS];
bit armed[CONNECTIONS];
bit rung;
byte object;                    /* rings in the wake object */
byte bells;                     /* bells in the TCP sockets the sleeper waits on as well */
bit ringing;                    /* Peer::ringing */
byte taken;                     /* bytes the sleeper has taken, of all connections */
byte head[CONNECTIONS];
byte fails = 1;                 /* rings that fail */

#define W_RUNG 0
#define W_ARM  1                /* + connection */
chan buffer = [4] of { byte, byte };
proctype Memory() {
  byte w, x;
end:
  do
  :: atomic { buffer?w,x -> if :: w == W_RUNG -> rung = x :: else -> armed[w - W_ARM] = x fi; w = 0; x = 0 }
  od
}

proctype Maker(byte me) {
  byte made;
  bit mine;
  do
  :: made == N -> break
  :: else ->
       tail[me]++; made++;      /* B1 and B2 */
       atomic { mine = armed[me]; armed[me] = 0 };      /* B3: an exchange */
       if
       :: mine ->
            atomic { !ringing -> ringing = 1 };
            if
            :: rung == 0 ->     /* B4 */
#ifdef BAD_SET_AFTER_RING
                 object++;
                 rung = 1
#else
                 rung = 1;      /* B5 */
                 if
                 :: object++
                 :: atomic { fails > 0 -> fails-- };
                    rung = 0;
                    bells++
                 fi
#endif
            :: else -> skip
            fi;
            ringing = 0
       :: else
       fi;
       mine = 0
  od
}

active proctype Sleeper() {
  byte i;
  bit ready;
  do
  :: taken == CONNECTIONS * N -> break
  :: else ->
#ifndef BAD_CLEAR_AFTER_ARM
       buffer!W_RUNG,0;         /* A0 */
#endif
       i = 0;
       do
       :: i < CONNECTIONS -> buffer!W_ARM + i,1; i++    /* A1 */
       :: else -> break
       od;
#ifdef BAD_CLEAR_AFTER_ARM
       buffer!W_RUNG,0;
#endif
       len(buffer) == 0;        /* A2 */
       i = 0; ready = 0;
       do
       :: i < CONNECTIONS -> ready = ready || tail[i] > head[i]; i++    /* A3 */
       :: else -> break
       od;
       if
       :: ready
       :: else -> object > 0 || bells > 0       /* A4 */
       fi;
       i = 0;
       do                       /* AfterSleep, the drain, and what is there */
       :: i < CONNECTIONS -> buffer!W_ARM + i,0; i++
       :: else -> break
       od;
       atomic { object = 0; bells = 0 };
       i = 0;
       do
       :: i < CONNECTIONS -> atomic { taken = taken + tail[i] - head[i]; head[i] = tail[i] }; i++
       :: else -> break
       od;
       i = 0; ready = 0
  od
}

init { atomic { byte c = 0;
  run Memory();
  do :: c < CONNECTIONS -> run Maker(c); c++ :: else -> break od } }
