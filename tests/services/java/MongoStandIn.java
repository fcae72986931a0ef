import de.bwaldvogel.mongo.MongoServer;
import de.bwaldvogel.mongo.MongoVersion;
import de.bwaldvogel.mongo.backend.h2.H2Backend;
import de.bwaldvogel.mongo.bson.Document;
import de.bwaldvogel.mongo.wire.message.MongoMessage;
import java.util.List;
import org.h2.mvstore.MVStore;

/**
 * A server that speaks MongoDB's protocol and keeps its promises: mongo-java-server on one H2 file.
 * Arguments: address, port, file.
 */
public final class MongoStandIn {
    /** What the driver asks for at least; the server itself says less than it can do. */
    private static final class Version implements MongoVersion {
        @Override
        public List<Integer> getVersionArray() {
            return List.of(4, 4, 0);
        }

        @Override
        public int getWireVersion() {
            return 9;
        }
    }

    /**
     * Answers as MongoDB does: with the state at one moment (the server itself hands out documents that later requests
     * change while they are being sent), and only when it is in the file, so that what was acknowledged survives a
     * SIGKILL, as with a journal.
     */
    private static final class Journaled extends H2Backend {
        Journaled(MVStore store) {
            super(store);
        }

        @Override
        public Document handleMessage(MongoMessage message) {
            Document answer;
            synchronized (this) {
                answer = super.handleMessage(message).cloneDeeply();
            }
            MVStore store = getMvStore();
            if (store.hasUnsavedChanges()) {
                store.commit();
            }
            return answer;
        }
    }

    public static void main(String[] arguments) {
        MVStore store = new MVStore.Builder().fileName(arguments[2]).autoCommitDisabled().open();
        store.setRetentionTime(1_000);
        H2Backend backend = new Journaled(store);
        backend.version(new Version());
        MongoServer server = new MongoServer(backend);
        Runtime.getRuntime().addShutdownHook(new Thread(server::shutdownNow));
        server.bind(arguments[0], Integer.parseInt(arguments[1]));
    }
}
